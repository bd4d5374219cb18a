"""Trees whose last directory is the class: `0_real` and `1_fake`, or `real` and `fake`.

One reader; the layouts differ in what the directories above the class mean. How many there are, and how they are
called, decides which layout it is, so that one tree never has two readings.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.evaluation.layouts.base import Layout, Options
from pipeline.evaluation.layouts.scan import keyed_images, subdirectories
from pipeline.evaluation.sample import UNKNOWN, Sample

NUMBERED = {"0_real": False, "1_fake": True}
PLAIN = {"real": False, "fake": True}
SPLITS = frozenset({"train", "val", "valid", "test"})
WILDRF_PLATFORMS = frozenset({"reddit", "twitter", "facebook"})

OBJECT_CLASSES = frozenset(
    [
        "airplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
        "apple",
        "orange",
        "summer",
        "winter",
        "zebra",
        "bedroom",
        "church",
    ]
)
"""LSUN and image-translation classes of ForenSynths: they tell GEN/CLASS/0_real from SET/GEN/0_real."""

_MAX_DEPTH = 3
_FULL_OF_IMAGES = frozenset({*NUMBERED, *PLAIN, "ai", "nature", "train2017", "val2017"})
"""Not looked into for further directories: listing a hundred thousand names costs seconds."""


def _holders(directory: Path, classes: dict[str, bool], chain: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every chain of directories, at most three long, that ends above a class directory."""
    names = subdirectories(directory)
    if any(name in classes for name in names):
        yield chain
    elif len(chain) < _MAX_DEPTH:
        for name in names:
            if name not in _FULL_OF_IMAGES:
                yield from _holders(directory / name, classes, (*chain, name))


def _chains(root: Path, classes: dict[str, bool]) -> list[tuple[str, tuple[str, ...]]]:
    """(split, directories between it and the class); a split only where every chain begins with one."""
    chains = list(_holders(root, classes))
    if all(chain and chain[0] in SPLITS for chain in chains):
        return [(chain[0], chain[1:]) for chain in chains]
    return [("", chain) for chain in chains]


def _kind(root: Path) -> str:
    """Which of the numbered layouts the tree is; empty when it is none."""
    if not root.is_dir():
        return ""
    chains = {chain for _, chain in _chains(root, NUMBERED)}
    depths = {len(chain) for chain in chains}
    if depths <= {0}:
        return "chameleon" if depths else ""
    if depths == {1}:
        return "wildrf" if {chain[0] for chain in chains} <= WILDRF_PLATFORMS else "aigibench"
    by_class = 3 not in depths and (1 in depths or _names_object_classes(chains))
    return "forensynths" if by_class else "univfd"


def _names_object_classes(chains: set[tuple[str, ...]]) -> bool:
    return any(chain[-1] in OBJECT_CLASSES for chain in chains if len(chain) > 1)


def _matches_univfd(root: Path) -> bool:
    return _kind(root) == "univfd"


def _matches_forensynths(root: Path) -> bool:
    return _kind(root) == "forensynths"


def _matches_aigibench(root: Path) -> bool:
    return _kind(root) == "aigibench"


def _matches_wildrf(root: Path) -> bool:
    return _kind(root) == "wildrf"


def _matches_chameleon(root: Path) -> bool:
    return _kind(root) == "chameleon"


def _matches_real_fake(root: Path) -> bool:
    return root.is_dir() and any(len(chain) <= 1 for _, chain in _chains(root, PLAIN))


def _walk(root: Path, classes: dict[str, bool], split: str | None) -> Iterator[tuple[tuple[str, ...], bool, Path, str]]:
    """(directories between split and class, synthetic, path, key) of each image."""
    for of_split, chain in _chains(root, classes):
        if split not in (None, of_split):
            continue
        for name, synthetic in classes.items():
            directory = root.joinpath(of_split, *chain, name)
            for key, path in keyed_images(directory, root):
                yield chain, synthetic, path, key


def _samples(root: Path, options: Options, generator_at: int, classes: dict[str, bool] = NUMBERED) -> Iterator[Sample]:
    """`generator_at` is the place of the generator's name in the chain; a source is the chain up to it."""
    for chain, synthetic, path, key in _walk(root, classes, options.split):
        generator = chain[min(generator_at, len(chain) - 1)] if chain else UNKNOWN
        source = "/".join(chain[: generator_at + 1]) or root.resolve().name
        yield Sample(key, synthetic, path, source, source, generator if synthetic else UNKNOWN)


def _read_univfd(root: Path, options: Options) -> Iterator[Sample]:
    yield from _samples(root, options, generator_at=1)


def _read_by_generator(root: Path, options: Options) -> Iterator[Sample]:
    yield from _samples(root, options, generator_at=0)


def _read_wildrf(root: Path, options: Options) -> Iterator[Sample]:
    """The generators are unknown; the platform is the source."""
    for chain, synthetic, path, key in _walk(root, NUMBERED, options.split):
        source = chain[0] if chain else root.resolve().name
        yield Sample(key, synthetic, path, source, source)


def _read_real_fake(root: Path, options: Options) -> Iterator[Sample]:
    yield from _samples(root, options, generator_at=0, classes=PLAIN)


UNIVFD = Layout(
    "univfd", "SET/GEN/[CLASS/]0_real,1_fake (UnivFD, AIGCDetect, SAFE, NPR)", _matches_univfd, _read_univfd
)
FORENSYNTHS = Layout(
    "forensynths",
    "[SPLIT/]GEN/[CLASS/]0_real,1_fake (ForenSynths)",
    _matches_forensynths,
    _read_by_generator,
    takes_split=True,
)
AIGIBENCH = Layout(
    "aigibench",
    "[SPLIT/]GEN/0_real,1_fake (AIGIBench, AIGI-Holmes)",
    _matches_aigibench,
    _read_by_generator,
    takes_split=True,
)
WILDRF = Layout(
    "wildrf", "[SPLIT/]reddit,twitter,facebook/0_real,1_fake", _matches_wildrf, _read_wildrf, takes_split=True
)
CHAMELEON = Layout("chameleon", "[SPLIT/]0_real,1_fake", _matches_chameleon, _read_by_generator, takes_split=True)
COMMUNITY_FORENSICS_LOCAL = Layout(
    "community_forensics_local",
    "[SPLIT/][GEN/]real,fake",
    _matches_real_fake,
    _read_real_fake,
    takes_split=True,
)
