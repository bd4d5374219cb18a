"""deploy/Dockerfile and .dockerignore, read as text: no image is built here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTRUCTION = re.compile(r"^([A-Z]+) (.*)$")


def stages() -> dict[str, list[tuple[str, str]]]:
    """Stage name -> its instructions, in the file's order."""
    text = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for line in text.splitlines():
        if match := INSTRUCTION.match(line):
            keyword, rest = match.groups()
            if keyword == "FROM":
                name = rest.split(" AS ")[1]
            found.setdefault(name, []).append((keyword, rest))
    return found


def test_the_default_target_is_cpu_and_cuda_is_another() -> None:
    assert list(stages())[-1] == "cpu"
    assert "cuda" in stages()


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_target_runs_as_a_user_without_rights(target: str) -> None:
    assert stages()[target][0] == ("FROM", f"runtime AS {target}")
    assert stages()[target][-1] == ("USER", "10001:10001")


def test_nothing_is_installed_unhashed() -> None:
    for instructions in stages().values():
        for keyword, rest in instructions:
            if keyword == "RUN" and "pip " in rest:
                assert "--require-hashes" in rest or "--no-deps" in rest, rest


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        source
        for instructions in stages().values()
        for keyword, rest in instructions
        if keyword == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert Path(source).parts[0] in allowed, source
        assert (ROOT / source).exists(), source


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_gateway_console_and_production_mode_find_their_packages(target: str) -> None:
    (copied,) = [rest for keyword, rest in stages()[f"dependencies-{target}"] if keyword == "COPY"]
    locked = {line.partition("==")[0] for line in (ROOT / copied.split()[0]).read_text().splitlines() if "==" in line}
    database = {"sqlalchemy", "psycopg", "psycopg-binary"}
    traces = {"opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"}
    assert {"fastapi", "uvicorn", "boto3", *database, *traces} <= locked
