"""Whatever strangers write, the page shows it as text."""

from __future__ import annotations

import html.parser
import io
import re
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.support.explaining import Case, explained
from workers.explain.html import render
from workers.explain.pictures import Pictures
from workers.explain.story import Story
from workers.explain.text import print_story
from workers.explain.visible import visible

_MARKUP = (
    "<script>",
    "</pre>",
    "</style>",
    "<!--",
    "]]>",
    '"',
    "'",
    "&lt;",
    "&#x202e;",
    "{{ 1 }}",
    "{% raw %}",
    "[red]",
)
_STEERING = ("\\", "\x1b]0;x\x07", "\u202e", "\u2066", "\u200b", "\x00", "\r", "\n", "&#x202e;", "a")
_PIECES = st.sampled_from(_MARKUP + _STEERING)
TEXTS = st.lists(_PIECES | st.text(max_size=8), max_size=8).map("".join).map(lambda t: t[:400])
CASE = Case()
STORY = explained(CASE, CASE.blocked()).story
MARK = "\N{SNOWMAN}"


class _Tags(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def handle_data(self, data: str) -> None:
        self.text += data


def with_text(text: str) -> Story:
    """The text in fields of every origin: producer, model, stages, log, people."""
    assert STORY.verdict is not None
    answer = STORY.mllm.answers[0].model_copy(update={"text": text, "question": text, "fault": text or "x"})
    reasons = tuple(reason.model_copy(update={"detail": text}) for reason in STORY.verdict.reasons)
    admission = STORY.verdict.admission.model_copy(update={"uri": text, "labels": {text: text}, "source": text or "x"})
    report = {"hypothesis": text, "primary_evidence": text, text: [text]}
    return STORY.model_copy(
        update={
            "verdict": STORY.verdict.model_copy(update={"reasons": reasons, "admission": admission}),
            "mllm": STORY.mllm.model_copy(update={"answers": (answer,), "report": report, "model": text}),
            "notes": (text,),
            "source": text,
        }
    )


PLAIN = _Tags(render(with_text("a"), Pictures(absent_original="a", absent_panel="a"))).tags


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_no_text_changes_the_structure_of_the_page(text: str) -> None:
    """Lists aside: a `; ` in a reason makes one more line of it."""
    quiet = text.replace("; ", ", ")
    page = _Tags(render(with_text(MARK + quiet), Pictures(absent_original=quiet, absent_panel=quiet)))
    assert page.tags == PLAIN
    assert MARK + visible(quiet) in page.text
    assert not any(_steers(c) for c in page.text)


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_no_text_steers_the_terminal(text: str) -> None:
    buffer = io.StringIO()
    print_story(with_text(text), Console(file=buffer, width=200, soft_wrap=True, highlight=False, color_system=None))
    assert not any(_steers(c) for c in buffer.getvalue())


@given(st.text())
def test_visible_text_keeps_what_shows_and_writes_out_the_rest(text: str) -> None:
    shown = visible(text)
    assert not any(_steers(c) for c in shown)
    assert visible(shown) == shown
    kept = [c for c in text if visible(c) == c]
    assert re.sub(r"<U\+[0-9A-F]{4,6}>", "", shown) == re.sub(r"<U\+[0-9A-F]{4,6}>", "", "".join(kept))


def _steers(character: str) -> bool:
    return character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
