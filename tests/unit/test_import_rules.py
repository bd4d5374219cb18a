"""Rules about the sources themselves: who imports whom, how long a file may be, what no file may name."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_LINES = 500
PACKAGES = ("mediasieve", "schemas", "pipeline", "workers")
MEASURED = (*PACKAGES, "tests")
KAFKA = "confluent_kafka"

# In two parts, so that this file names none of them either.
REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("repo1.maven", "org"),
        ("maven.apache", "org/maven2"),
        ("registry.npmjs", "org"),
        ("docker", "io"),
        ("ghcr", "io"),
        ("quay", "io"),
        ("crates", "io"),
        ("proxy.golang", "org"),
        ("conda.anaconda", "org"),
    )
]


def sources(*below: str) -> list[Path]:
    return sorted(path for folder in below for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Top-level names of all imports, also those inside functions, and of modules named as text."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (name.name.partition(".")[0] for name in names)
            case ast.ImportFrom(module=str() as module, level=0):
                yield module.partition(".")[0]
            case ast.Constant(value=str() as text) if text.isascii() and len(text) < 64:
                yield text.partition(".")[0]


def test_the_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_only_the_kafka_package_imports_the_kafka_client() -> None:
    allowed = ROOT / "pipeline/streaming/kafka"
    users = [p for p in sources(*PACKAGES) if KAFKA in imported(p)]
    assert users, "the scan finds nothing at all"
    assert [str(p) for p in users if allowed not in p.parents] == []


def test_schemas_import_nothing_of_ours() -> None:
    found = {(p.name, name) for p in sources("schemas") for name in imported(p) if name in {"pipeline", "workers"}}
    assert found == set()


@pytest.mark.parametrize("folder", MEASURED)
def test_no_source_is_over_500_lines(folder: str) -> None:
    files = sources(folder)
    assert files
    lengths = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in files}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_nothing_tracked_names_a_package_registry() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, timeout=60)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    found = []
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if not name or not path.is_file():
            continue
        data = path.read_bytes()
        found += [f"{name}: {host}" for host in REGISTRY_HOSTS if host.encode() in data]
    assert found == []
