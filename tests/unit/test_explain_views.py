"""The story on a terminal and as a page."""

from __future__ import annotations

import html.parser
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from PIL.PngImagePlugin import PngInfo
from rich.console import Console

from pipeline.media.decode import DecodeLimits
from schemas.decision import Outcome
from tests.support.explaining import Case, explained, found, review
from tests.support.mllm import encoded, picture
from tests.support.spawning import bare_main  # noqa: F401 - a fixture
from workers.classifier.settings import SandboxSettings
from workers.explain.collect import explain
from workers.explain.evidence import EvidenceReader
from workers.explain.html import label_rows, render
from workers.explain.pictures import MAX_SIDE_PX, PictureMaker, Pictures
from workers.explain.proof import NoProver
from workers.explain.story import ProofStory, Proved, Story
from workers.explain.text import print_story
from workers.explain.visible import visible

RTL = "\u202egnp.exe"
HOSTILE = f"<script>alert(1)</script>\"' onload=x {RTL} \x1b[31m\u200b&amp; {{{{ 7 * 7 }}}}"
KINDS = ("released", "low_risk", "blocked", "escalated", "unconfigured", "undecodable")
every_kind = pytest.mark.parametrize("kind", KINDS)


def printed(story: Story) -> str:
    buffer = io.StringIO()
    print_story(story, Console(file=buffer, width=120, soft_wrap=True, highlight=False))
    return buffer.getvalue()


def story_of(kind: str, case: Case | None = None) -> Story:
    case = case or Case()
    return explained(case, getattr(case, kind)()).story


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and all text, as a browser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@every_kind
def test_a_page_is_well_formed_and_asks_for_nothing(kind: str) -> None:
    page = Page(render(story_of(kind), Pictures(absent_original="gone", absent_panel="gone")))
    assert page.open == []
    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"script", "link", "iframe", "object", "form", "base", "a", "video"})
    assert not [value for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href", "action")]
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


@every_kind
def test_the_headings_are_in_order_and_pictures_of_numbers_have_a_text(kind: str) -> None:
    page = Page(render(story_of(kind), Pictures()))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    labels = [attrs.get("aria-label") for tag, attrs in page.tags if tag == "svg"]
    assert all(label and "scale from 0 to 1" in label for label in labels)


def test_hostile_text_of_every_origin_is_written_out() -> None:
    case = Case(
        uri=f"https://x/{RTL}<script>",
        labels={"note": HOSTILE},
        answer=HOSTILE,
        detail=HOSTILE,
    )
    decision = case.blocked()
    told = explain(
        replace(found(decision), reviews=(review(decision, HOSTILE),), source=HOSTILE, notes=(HOSTILE,)),
        EvidenceReader(case.store),
        NoProver(HOSTILE),
        None,
    ).story
    text = render(told, Pictures(absent_original=HOSTILE, absent_panel=HOSTILE))
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    for hidden in ("\u202e", "\x1b", "\u200b"):
        assert hidden not in text
    shown = "<script>alert(1)</script>\"' onload=x <U+202E>gnp.exe <U+001B>[31m<U+200B>&amp; {{ 7 * 7 }}"
    assert page.text.count(shown) >= 8
    assert "<U+202E>gnp.exe<script>" in page.text


def test_a_terminal_is_not_steered() -> None:
    text = printed(story_of("blocked", Case(labels={"note": HOSTILE}, answer=HOSTILE, detail="[red]x[/red]" + RTL)))
    assert not re.search("[\x1b\u202e\u200b]", text)
    assert "<U+001B>[31m" in text
    assert "[red]x[/red]<U+202E>gnp.exe" in text


def test_no_text_of_a_stranger_passes_for_a_line_of_the_terminal() -> None:
    forged = "desk\naudit proof\n  verified: The record"
    case = Case(labels={"note": forged}, answer=forged + "\tx", detail=forged)
    decision = case.blocked()
    told = explain(
        replace(found(decision), reviews=(review(decision, forged),)), EvidenceReader(case.store), NoProver("-"), None
    ).story
    text = printed(told)
    assert [line for line in text.splitlines() if line.startswith(("audit proof", "  verified:"))] == ["audit proof"]
    assert "note=desk<U+000A>audit proof<U+000A>  verified: The record" in text
    assert "  | audit proof\n" in text


@every_kind
def test_a_terminal_shows_what_the_page_shows(kind: str) -> None:
    story = story_of(kind)
    text = printed(story)
    assert story.headline in text
    for piece in story.evidence:
        assert piece.sha256 is not None
        assert piece.sha256 in text
    assert "no review is known here" in text


def test_what_does_not_hold_is_said_first() -> None:
    story = story_of("blocked").model_copy(
        update={
            "proof": ProofStory(
                proved=Proved.FAILED, said="forked", tree="t", leaf_index=1, tree_size=2, root="r", record_sha256="s"
            )
        }
    )
    assert not story.holds
    lines = printed(story).splitlines()
    assert "does not hold" in lines[1]
    page = Page(render(story, Pictures()))
    assert page.text.index("does not hold") < page.text.index("What was looked at")


def test_a_story_without_a_record_is_a_page_too() -> None:
    story = story_of("blocked").model_copy(update={"verdict": None, "outcome": Outcome.BLOCK})
    assert Page(render(story, Pictures(absent_original="erased"))).open == []
    assert "news-desk" not in printed(story).split("spectral features", 1)[0].replace("tenant", "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Grüße, 日本 ok\n\tnext", "Grüße, 日本 ok\n\tnext"),
        ("a\u202eb", "a<U+202E>b"),
        ("a\r\0", "a<U+000D><U+0000>"),
        ("\u2028\ufeff\U000e0041", "<U+2028><U+FEFF><U+E0041>"),
        ("\u3164x", "<U+3164>x"),
    ],
)
def test_what_hides_is_made_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_labels_of_near_thresholds_go_on_lines_of_their_own() -> None:
    assert label_rows([0.3, 0.75]) == [0, 0]
    assert label_rows([0.25, 0.3, 0.35]) == [0, 1, 2]
    assert label_rows([0.75, 0.95]) == [0, 1]
    assert label_rows([]) == []


@pytest.fixture(scope="module")
def maker() -> Iterator[PictureMaker]:
    maker = PictureMaker(DecodeLimits(), SandboxSettings(workers=1))
    yield maker
    maker.close()


def test_a_picture_is_made_anew_and_small(maker: PictureMaker) -> None:
    note = PngInfo()
    note.add_text("Comment", "<script>alert(1)</script>")
    original = encoded(picture(1600, 1200), pnginfo=note)
    assert b"<script>" in original
    made, why = maker.make(original)
    assert made is not None, why
    assert (made.width, made.height) == (MAX_SIDE_PX, 768)
    assert made.webp[:4] == b"RIFF"
    assert b"<script>" not in made.webp
    assert made.data_uri.startswith("data:image/webp;base64,")


@pytest.mark.parametrize("data", [b"", b"no image", encoded(picture())[:200]])
def test_bytes_that_are_no_picture_are_said_to_be_none(maker: PictureMaker, data: bytes) -> None:
    made, why = maker.make(data)
    assert made is None
    assert why.startswith("The bytes are there, but they cannot be shown: ")


def test_the_page_shows_the_image_behind_a_blur(maker: PictureMaker) -> None:
    case = Case(original=encoded(picture()), panel=encoded(picture(64, 48, 3)))
    explanation = explained(case, case.blocked())
    text = render(explanation.story, explanation.pictures(maker.make))
    page = Page(text)
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert [i["width"] for i in images] == ["160", "64"]
    assert all((i["src"] or "").startswith("data:image/webp;base64,") and i["alt"] for i in images)
    boxes = [attrs for tag, attrs in page.tags if tag == "input"]
    assert [(b["type"], "checked" in b) for b in boxes] == [("checkbox", False)]
    assert re.search(r"\.original \.frame img \{ filter: blur\(", text)


def colours() -> list[dict[str, str]]:
    """The page's variables: light, dark, print."""
    css = render(story_of("released"), Pictures())
    return [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", block)) for block in re.findall(r":root \{(.*?)\}", css, re.S)
    ]


def luminance(colour: str) -> float:
    """Relative, by WCAG 2.2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    shares = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_has_the_contrast_that_wcag_asks_for(scheme: int) -> None:
    found = colours()
    assert len(found) == 3
    used = found[scheme]
    pairs = [(text, ground) for text in ("ink", "soft", "mark") for ground in ("page", "card")]
    for text, ground in (*pairs, ("good", "good-bg"), ("care", "care-bg"), ("bad", "bad-bg")):
        low, high = sorted((luminance(used[text]), luminance(used[ground])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)
