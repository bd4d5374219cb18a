"""requirements/*.txt: complete for pyproject.toml, hashed, and bound to no package index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "requirements").glob("*.txt"))
EXTRAS = {
    name: tuple(re.findall(r"--extra (\w+)", options))
    for options, name in re.findall(
        r"UV_COMPILE\) pyproject\.toml(.*) -o requirements/(\w+)\.txt$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
}


def locked(path: Path) -> list[tuple[Requirement, int]]:
    """Each pinned requirement and the number of its hashes."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found = []
    for line in filter(str.strip, text.splitlines()):
        requirement, *hashes = re.split(r"\s+--hash=sha256:", line.strip())
        found.append((Requirement(requirement), len(hashes)))
    return found


def declared(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = [line for extra in extras for line in project["optional-dependencies"][extra]]
    return [Requirement(line) for line in [*project["dependencies"], *optional]]


def test_all_files_are_there() -> None:
    assert (
        {path.stem for path in FILES}
        == {"image", "cuda", "dev", "torch", "build", "checkov"}
        == {*EXTRAS, "build", "checkov"}
    )
    assert {"web", "postgres", "objectlock", "otel"} <= {*EXTRAS["image"]} & {*EXTRAS["cuda"]}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_requirement_is_pinned_and_hashed(path: Path) -> None:
    requirements = locked(path)
    assert requirements
    for requirement, hashes in requirements:
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement
        assert hashes, requirement


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_file_names_an_index(path: Path) -> None:
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links", path.read_text())


@pytest.mark.parametrize("name", EXTRAS)
@pytest.mark.parametrize("system", [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")], ids="-".join)
@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_what_pyproject_declares_is_locked(name: str, system: tuple[str, str], python: str) -> None:
    environment: dict[str, str] = {
        **{name: str(value) for name, value in default_environment().items()},
        "sys_platform": system[0],
        "platform_machine": system[1],
        "python_version": python,
        "python_full_version": f"{python}.7",
    }
    versions = {
        canonicalize_name(requirement.name): next(iter(requirement.specifier)).version
        for requirement, _ in locked(ROOT / "requirements" / f"{name}.txt")
        if requirement.marker is None or requirement.marker.evaluate(environment)
    }
    for requirement in declared(*EXTRAS[name]):
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name}: run `make requirements`"
        assert version in requirement.specifier, f"{requirement}: {version} is locked: run `make requirements`"
