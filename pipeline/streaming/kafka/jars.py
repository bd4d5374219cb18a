"""Apache Kafka's jars in the user's cache, each one checked against a checked-in sha256 at every start.

`python -m pipeline.streaming.kafka.jars lock` writes the lock anew after `COORDINATES` changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

# Not 4.3 or 4.4: there a coordinator takes a partition that has no leader for a deleted one and drops what ends a
# transaction on it (KAFKA-20734). See docs/adr/0005-a-real-kafka-from-jars.md before changing it.
KAFKA_VERSION = "4.2.2"

# The `!` keeps log4j's parent pom from setting the versions of Kafka's own dependencies: without it the
# resolver takes kafka-clients 3.9.1, and the broker cannot run.
COORDINATES = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.apache.logging.log4j:log4j-slf4j-impl:2.25.5!"

LOCK_PATH = Path(__file__).with_name("kafka-jars.json")


class JarsError(Exception):
    """The jars are not there, or not those of the lock; the text says what to do."""


def import_extra(module: str) -> ModuleType:
    """Import a module of the [embedded] extra.

    Raises:
        JarsError: the extra is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise JarsError(
            f"the embedded Kafka needs the Python package {module!r}: install mediasieve[embedded]"
        ) from error


def default_directory() -> Path:
    """Folder of the jars under `$XDG_CACHE_HOME`, or `~/.cache` where that is not set."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "mediasieve" / f"kafka-{KAFKA_VERSION}"


def read_lock(path: Path = LOCK_PATH) -> dict[str, str]:
    """File name -> sha256 of every jar of the class path.

    Raises:
        JarsError: the lock was made for other coordinates.
    """
    lock = json.loads(path.read_text())
    if lock["coordinates"] != COORDINATES:
        raise JarsError(
            f"{path.name} is for {lock['coordinates']}, the program wants {COORDINATES}: "
            "run `python -m pipeline.streaming.kafka.jars lock`"
        )
    return dict(lock["sha256"])


def ensure_jars(directory: Path | None = None) -> list[Path]:
    """Paths of all jars, verified; fetches what is missing, and asks the network nothing when all is there.

    Two processes may do this at once: one fetches, the other waits. About 43 MB are read to verify.

    Raises:
        JarsError: a jar differs from the lock, or the extra that fetches them is missing.
    """
    directory = directory or default_directory()
    lock = read_lock()
    if _missing(directory, lock):
        with _exclusive(directory):
            if _missing(directory, lock):
                _fetch(directory, lock)
    return [_verified(directory / name, digest) for name, digest in sorted(lock.items())]


def _missing(directory: Path, lock: Mapping[str, str]) -> list[str]:
    return [name for name in lock if not (directory / name).is_file()]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verified(path: Path, expected: str) -> Path:
    found = _sha256(path)
    if found != expected:
        raise JarsError(f"{path} has sha256 {found}, the lock has {expected}: delete {path.parent} and run again")
    return path


@contextlib.contextmanager
def _exclusive(directory: Path) -> Iterator[None]:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / f"{directory.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _resolve(scratch: Path) -> dict[str, Path]:
    """File name -> resolved jar; reads and fills the user's Maven repository, as every Maven tool does."""
    jgo = import_extra("jgo")
    with contextlib.redirect_stdout(sys.stderr):
        environment = jgo.build(COORDINATES, cache_dir=scratch)
    folder = Path(environment.path)
    # jgo sorts by whether a jar names a Java module; the class path wants both kinds.
    return {jar.name: jar for kind in ("jars", "modules") for jar in (folder / kind).glob("*.jar")}


def _fetch(directory: Path, lock: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory(prefix="kafka-jars-", dir=directory.parent) as name:
        scratch = Path(name)
        resolved = _resolve(scratch / "jgo")
        if resolved.keys() != lock.keys():
            difference = ", ".join(sorted(resolved.keys() ^ lock.keys()))
            raise JarsError(f"{COORDINATES} resolved to other jars than the lock names: {difference}")
        directory.mkdir(exist_ok=True)
        for jar in _missing(directory, lock):
            found = _sha256(resolved[jar])
            if found != lock[jar]:
                raise JarsError(
                    f"{jar} was resolved with sha256 {found}, the lock has {lock[jar]}: delete it from the "
                    "Maven repository ($M2_REPO or ~/.m2/repository) and run again"
                )
            # A copy and not a link: what happens to the Maven repository later must not change our jars.
            copy = scratch / jar
            shutil.copyfile(resolved[jar], copy)
            os.replace(copy, directory / jar)


def write_lock(path: Path = LOCK_PATH) -> int:
    """Resolve the coordinates, write the lock, and return the number of jars."""
    with tempfile.TemporaryDirectory(prefix="kafka-jars-") as name:
        digests = {jar: _sha256(file) for jar, file in sorted(_resolve(Path(name)).items())}
    path.write_text(json.dumps({"coordinates": COORDINATES, "sha256": digests}, indent=2) + "\n")
    return len(digests)


if __name__ == "__main__":
    if sys.argv[1:] != ["lock"]:
        sys.exit("usage: python -m pipeline.streaming.kafka.jars lock")
    sys.stderr.write(f"{LOCK_PATH}: {write_lock()} jars\n")
