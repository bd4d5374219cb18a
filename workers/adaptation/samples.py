"""From labelled images to features that a family can be made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import numpy as np

from pipeline.detection.spectral import strata
from pipeline.detection.spectral.few_shot import MAX_SAMPLES, MIN_SAMPLES
from pipeline.detection.spectral.kernel import Float64
from pipeline.detection.spectral.reference import SpectralReference
from pipeline.evaluation.perceptual_hash import NEAR_DUPLICATE_BITS, distance_bits, is_informative
from pipeline.media.errors import ContentCorrupt, ContentMissing
from pipeline.training.spectral_family import stacked
from workers.adaptation.labels import Agreed
from workers.adaptation.measure import Measured, Unmeasurable
from workers.adaptation.records import LabelledSample

_SIZES = strata.SIZES[:2]
"""Those that copies are made for."""


class Contents(Protocol):
    """What is needed of `ContentStore`."""

    def get(self, tenant: str, sha256: str) -> bytes:
        """The original bytes."""


class Measures(Protocol):
    """What is needed of `Measurer`."""

    def measure(self, data: bytes) -> Measured:
        """Raises Unmeasurable."""


@dataclass(frozen=True, slots=True)
class Usable:
    """A labelled image with its measurement."""

    sample: LabelledSample
    measured: Measured


def usable_of(
    labelled: Iterable[Agreed], contents: Contents, measures: Measures, left_out: dict[UUID, str]
) -> list[Usable]:
    """The first `MAX_SAMPLES` that can be measured and show different pictures; why others cannot goes to `left_out`.

    Two copies of one picture would vouch for each other when either is left out.

    Raises:
        StoreUnavailable: try again later.
    """
    found: list[Usable] = []
    for agreed in labelled:
        if len(found) == MAX_SAMPLES:
            break
        sample = agreed.sample
        try:
            measured = measures.measure(contents.get(sample.tenant, sample.content_sha256))
            _require_smallest(measured)
        except (ContentMissing, ContentCorrupt, Unmeasurable) as error:
            left_out[sample.review_id] = str(error)[:1024]
            continue
        twin = next((u for u in found if _same_picture(u.measured.picture, measured.picture)), None)
        if twin is not None:
            left_out[sample.review_id] = f"shows the picture of review {twin.sample.review_id}"
            continue
        found.append(Usable(sample, measured))
    return found


def features_of(
    reference: SpectralReference, members: Sequence[Usable], controls: Sequence[Usable]
) -> tuple[dict[str, Float64], dict[str, Float64]]:
    """Features of members and of controls by the reference's strata.

    Of the sizes that every member has, where the strata share photographs enough to hold a family against; a control
    that lacks one of them is left out.
    """
    wanted: dict[str, str] = {}
    for size in _SIZES:
        names = [f"{codec}/{size}" for codec in strata.CODECS]
        served = {reference.lookup(name)[0]: name for name in names}
        more = {**served, **wanted}
        if all(_has(member, names) for member in members) and _shared_photographs(reference, more) >= 2 * MIN_SAMPLES:
            wanted = more
    complete = [control for control in controls if _has(control, list(wanted.values()))]
    return _stacked(members, wanted), _stacked(complete, wanted)


def _stacked(images: Sequence[Usable], wanted: Mapping[str, str]) -> dict[str, Float64]:
    by_name = stacked([image.measured.features for image in images], list(wanted.values()))
    return {served: by_name[name] for served, name in wanted.items()} if by_name else {}


def _shared_photographs(reference: SpectralReference, names: Iterable[str]) -> int:
    first, *others = [reference.strata[name].held_out_photograph for name in names]
    for other in others:
        first = np.intersect1d(first, other)
    return int(np.unique(first).size)


def _has(image: Usable, names: Sequence[str]) -> bool:
    return all(name in image.measured.features for name in names)


def _require_smallest(measured: Measured) -> None:
    missing = [codec for codec in strata.CODECS if f"{codec}/{_SIZES[0]}" not in measured.features]
    if missing:
        raise Unmeasurable(f"says nothing as {missing[0]}: below 264 px, flat, letterboxed or colourless")


def _same_picture(one: int, other: int) -> bool:
    return is_informative(one) and is_informative(other) and distance_bits(one, other) <= NEAR_DUPLICATE_BITS
