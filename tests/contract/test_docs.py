"""The documentation says what the code does: links, commands, settings, examples, numbers, generated pages."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

import pipeline.exit_codes
from pipeline.observability.metrics import METRICS
from pipeline.observability.report_metrics import REPORT_METRICS
from pipeline.settings import CONFIG_VARIABLE, PREFIX, load_settings
from schemas.media import MediaReference
from schemas.wire import decode
from tests.support import postgres
from workers import reference
from workers.cli.main import app
from workers.settings import Settings

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
MODEL_CARD = ROOT / "pipeline/detection/bundles/default/MODEL_CARD.md"
PAGES = [
    README,
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "workers").glob("*/README.md")),
]
WRITTEN = [page for page in PAGES if page.name not in ("settings.md", "metrics.md")]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
each_written_page = pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE_LINE = re.compile(r"^ {4}(\S.*)$", re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")


def code(text: str) -> list[str]:
    """Code spans, indented code lines and the lines of fenced blocks."""
    without_fences = FENCE.sub("", text)
    fenced = [line for _, body in FENCE.findall(text) for line in body.splitlines()]
    return fenced + CODE_LINE.findall(without_fences) + SPAN.findall(without_fences)


def blocks(page: Path, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(page.read_text()) if found == language]


def anchors(page: Path) -> set[str]:
    """Of all headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {anchor_of(heading) for heading in headings}


def anchor_of(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path) if path else page
        assert to.exists(), target
        assert not anchor or anchor in anchors(to), target


@each_written_page
def test_named_paths_exist(page: Path) -> None:
    for text in code(page.read_text()):
        if re.fullmatch(r"(schemas|pipeline|workers|tests|docs|deploy)/[\w./-]*", text):
            assert (ROOT / text).exists(), text


def commands(page: Path) -> Iterator[list[str]]:
    for text in code(page.read_text()):
        found = re.search(r"(?:^|/| )mediasieve ((?:[a-z]|--)[^|#;]*)", text)
        if found:
            yield found[1].split()


@each_written_page
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in commands(page):
        command: Any = typer.main.get_command(app)
        while words and hasattr(command, "commands"):
            if command.invoke_without_command and words[0].startswith("--"):
                break  # a group that is a command as well
            assert words[0] in command.commands, words
            command = command.commands[words.pop(0)]
        options = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= options, (command.name, words)


def test_every_command_is_in_the_readme() -> None:
    named = {words[0] for words in commands(README)}
    assert named == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]  # it is a group


@each_written_page
def test_make_targets_and_modules_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for text in code(page.read_text()):
        assert set(re.findall(r"^make ([a-z-]+)", text)) <= targets, text
        for module in re.findall(r"python -m ([\w.]+)", text):
            assert importlib.util.find_spec(module), text


@each_page
def test_variables_are_settings(page: Path) -> None:
    settings = {row.variable for section in reference.sections() for row in section.rows}
    known = settings | {CONFIG_VARIABLE, postgres.VARIABLE}
    assert set(re.findall(rf"\b{PREFIX}\w+", page.read_text())) <= known


@each_written_page
def test_metrics_exist(page: Path) -> None:
    assert set(re.findall(r"\bmediasieve_[a-z_]+", page.read_text())) <= {
        metric.name for metric in (*METRICS, *REPORT_METRICS)
    }


def test_the_references_of_the_readme_decode() -> None:
    given, _ = blocks(README, "json")
    on_one_line = re.findall(r"echo '(\{.*?\})'", README.read_text())
    assert on_one_line
    for value in (given, *on_one_line):
        assert decode(MediaReference, value.encode()).media_id == "acme-1"


def test_the_finding_of_the_readme_has_fields_of_a_finding() -> None:
    _, shown = blocks(README, "json")
    example = ROOT / "schemas/examples/valid/detection_finding/escalate_uncertain.json"
    assert paths(json.loads(shown)) <= paths(json.loads(example.read_text()))


def paths(value: Any, at: str = "") -> set[str]:
    if isinstance(value, dict):
        return {at}.union(*(paths(v, f"{at}/{k}") for k, v in value.items()))
    if isinstance(value, list):
        return {at}.union(*(paths(v, at) for v in value))
    return {at}


def test_the_python_of_the_readme_compiles() -> None:
    (source,) = blocks(README, "python")
    compile(source, "README.md", "exec")


def test_the_files_of_the_readme_are_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    text = "\n".join(blocks(README, "toml"))
    (tmp_path / "fleet.toml").write_text(text)
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "fleet.toml"))
    settings = load_settings(Settings)
    assert settings.classifier.backend.kind == tomllib.loads(text)["classifier"]["backend"]["kind"] == "torch"
    assert settings.mllm.openai is not None


def test_the_figures_of_the_readme_are_those_of_the_model_card() -> None:
    figures = re.findall(r"\d+/\d+; [\d.%-]+|\d\.\d+ \(DeLong [^)]*\)", README.read_text())
    assert len(figures) >= 6
    card = MODEL_CARD.read_text()
    assert [figure for figure in figures if figure not in card] == []


def test_the_exit_codes_are_all_described() -> None:
    table = (ROOT / "docs/delivery.md").read_text().partition("## Exit codes of a worker")[2]
    described = set(map(int, re.findall(r"^\| (\d+) \|", table, re.MULTILINE)))
    named = {value for name, value in vars(pipeline.exit_codes).items() if name.startswith("EXIT_")}
    assert described == named | {0, 1}


def test_the_generated_pages_are_fresh() -> None:
    assert reference.stale_files() == []


def test_the_defaults_shown_are_the_defaults() -> None:
    defaults = Settings.model_construct().model_dump(mode="json")
    shown = 0
    for section in reference.sections():
        for row in section.rows:
            value: Any = defaults
            for part in row.variable.removeprefix(PREFIX).lower().split("__"):
                value = value.get(part, ...) if isinstance(value, dict) else ...
            if value is ... or "(" in section.title or "NAME" in section.title or row.default == "computed at start":
                continue  # of a choice that is not the default, or of an entry that is not there
            value = sorted(value) if isinstance(value, list) else value
            assert row.default == ("none" if value is None else f"`{json.dumps(value)}`"), row
            shown += 1
    assert shown > 60


def test_check_names_a_stale_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main([], tmp_path) == 0
    assert reference.main(["--check"], tmp_path) == 0
    page = tmp_path / "docs/metrics.md"
    page.write_text(page.read_text().replace("counter", "gauge"))
    assert reference.main(["--check"], tmp_path) == 1
    assert capsys.readouterr().err == "docs/metrics.md is stale: run python -m workers.reference\n"
