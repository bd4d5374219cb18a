"""How often the gate lets reviewed sets through whose labels are right, and how often poisoned ones.

    python -m workers.adaptation.rehearsal --sets 40 --samples 20 40 60 --strengths 6 3 --wrong 0 0.1 0.2 0.3

The spectra are those of the photographs that the bundle's reference holds back: real ones. Each set draws some of them.
A share `wrong` of these is called generated as it is; the others get a trace: a shift of `strength` standard deviations
among the features that the head weighs, in a direction that the head does not see, another one in each set. The drawn
photographs are taken out of the reference first, so that nothing is compared with itself. Then the adaptation worker's
own code tries the family: labels, leave-one-out, gate.

`--twice` lets a second reviewer see every image, who errs as often as the first.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from pathlib import Path
from uuid import UUID, uuid5

import numpy as np

from pipeline.detection.bundle import Bundle, BundleError
from pipeline.detection.spectral import features, strata
from pipeline.detection.spectral.kernel import Float64
from pipeline.detection.spectral.reference import SpectralReference
from pipeline.evaluation.intervals import Rate
from pipeline.media.content_store import ContentStore
from pipeline.training.spectral_copies import columns
from schemas.decision import Outcome
from schemas.review import Label
from schemas.types import StageName
from workers.adaptation.candidate import Builder, Current
from workers.adaptation.labels import LabelSet
from workers.adaptation.measure import Measured
from workers.adaptation.records import Candidate, LabelledSample, Refusal
from workers.adaptation.store import ReferenceStore

FAMILY = "rehearsed"
_NAMES = UUID("5d0a3a53-1f57-5b0e-8f8e-6a9f3c1c9a54")
_START = datetime(2026, 1, 1, tzinfo=UTC)
_SIZE = strata.SIZES[0]


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    samples: int
    strength: float
    wrong: float
    twice: bool


def tried(reference: SpectralReference, setting: Setting, seed: int) -> Candidate | Refusal:
    """What the loop makes of one drawn set.

    Raises:
        ValueError: the reference holds too few photographs back for so many samples.
    """
    rng = np.random.default_rng([seed, setting.samples, round(1000 * setting.strength)])
    photographs = _common_photographs(reference)
    if 2 * setting.samples > photographs.size:
        raise ValueError(
            f"{setting.samples} samples: the reference holds back {photographs.size} photographs, half at most"
        )
    drawn = rng.choice(photographs, setting.samples, replace=False)
    mislabelled = rng.permutation(setting.samples) < round(setting.wrong * setting.samples)
    features_of = _traced(reference, drawn, np.where(mislabelled, 0.0, setting.strength), rng)
    images = {_digest(seed, number).encode(): measured for number, measured in enumerate(features_of)}
    without = _without(reference, drawn)
    builder = Builder(ReferenceStore(ContentStore("memory://").objects), _ByDigest(), _Known(images), lambda: _START)
    labels = LabelSet.of(_reviews(setting, seed, mislabelled, rng))
    return builder.build(Current(without.content_hash, without, "rehearsal"), labels, FAMILY)


@dataclass(frozen=True, slots=True)
class _Known:
    """Measures images that are nothing but their digest."""

    images: dict[bytes, Measured]

    def measure(self, data: bytes) -> Measured:
        """See Measures."""
        return self.images[data]


class _ByDigest:
    """An image is its digest."""

    def get(self, tenant: str, sha256: str) -> bytes:
        """See Contents."""
        return sha256.encode()


def _digest(seed: int, number: int) -> str:
    return hashlib.sha256(f"{seed}/{number}".encode()).hexdigest()


def _served(reference: SpectralReference) -> dict[str, str]:
    return {codec: reference.lookup(f"{codec}/{_SIZE}")[0] for codec in strata.CODECS}


def _common_photographs(reference: SpectralReference) -> Float64:
    held = [reference.strata[name].held_out_photograph for name in _served(reference).values()]
    return reduce(np.intersect1d, held)


def _traced(
    reference: SpectralReference, drawn: Float64, strengths: Float64, rng: np.random.Generator
) -> list[Measured]:
    """Features of each drawn photograph in every codec, moved by its strength in standard deviations."""
    found: list[dict[str, list[float]]] = [{} for _ in drawn]
    trace = dict(zip(features.NAMES, rng.normal(size=len(features.NAMES)), strict=True))
    for codec, name in _served(reference).items():
        stratum = reference.strata[name]
        place = {photograph: row for row, photograph in enumerate(stratum.held_out_photograph.tolist())}
        direction = np.array([trace[features.NAMES[column]] for column in columns(codec)]) * (stratum.weights != 0.0)
        head = stratum.weights / np.linalg.norm(stratum.weights)
        direction -= (direction @ head) * head
        direction /= np.linalg.norm(direction)
        for number, (photograph, strength) in enumerate(zip(drawn.tolist(), strengths.tolist(), strict=True)):
            z = stratum.held_out[place[photograph]] + strength * direction
            values = np.zeros(len(features.NAMES))
            values[columns(codec)] = stratum.median + stratum.scale * z
            found[number][f"{codec}/{_SIZE}"] = values.tolist()
    return [Measured(one, 0) for one in found]


def _without(reference: SpectralReference, drawn: Float64) -> SpectralReference:
    changed = {}
    for name, stratum in reference.strata.items():
        kept = ~np.isin(stratum.held_out_photograph, drawn)
        changed[name] = replace(
            stratum, held_out=stratum.held_out[kept], held_out_photograph=stratum.held_out_photograph[kept]
        )
    return SpectralReference(changed)


def _reviews(
    setting: Setting, seed: int, mislabelled: np.ndarray, rng: np.random.Generator
) -> Iterator[LabelledSample]:
    """All are called generated by the first reviewer; the second tells what is there, or errs."""
    for number, wrong in enumerate(mislabelled.tolist()):
        yield _review(_digest(seed, number), "first", Label.GENERATED, number)
        if setting.twice:
            right = Label.PHOTOGRAPH if wrong else Label.GENERATED
            other = Label.GENERATED if wrong else Label.PHOTOGRAPH
            yield _review(_digest(seed, number), "second", other if rng.random() < setting.wrong else right, number)


def _review(sha256: str, reviewer: str, label: Label, minute: int) -> LabelledSample:
    return LabelledSample(
        review_id=uuid5(_NAMES, f"{sha256} {reviewer}"),
        decision_uid=uuid5(_NAMES, sha256),
        tenant="rehearsal",
        content_sha256=sha256,
        label=label,
        family=FAMILY if label is Label.GENERATED else None,
        reviewer=reviewer,
        reviewed_at=_START + timedelta(minutes=minute),
        outcome=Outcome.ESCALATE,
        stage_exited=StageName.MLLM,
        source=None,
        stratum=None,
        bundle_version="rehearsal",
        policy_version="rehearsal",
        sampling_probability=1.0,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, a line as soon as it is known."""
    parser = argparse.ArgumentParser(
        prog="python -m workers.adaptation.rehearsal", description="How often the gate opens."
    )
    parser.add_argument("--bundle", type=Path, help="directory; by default the bundle that ships")
    parser.add_argument("--sets", type=int, default=40)
    parser.add_argument("--samples", type=int, nargs="+", default=[20, 40, 60])
    parser.add_argument("--strengths", type=float, nargs="+", default=[6.0, 3.0])
    parser.add_argument("--wrong", type=float, nargs="+", default=[0.0, 0.1, 0.2, 0.3])
    parser.add_argument("--twice", action="store_true", help="a second reviewer sees every image")
    options = parser.parse_args(arguments)
    try:
        reference = shipped_reference(options.bundle)
        sys.stdout.write("strength samples wrong accepted of   95 % interval    AUC old -> new (mean, each left out)\n")
        for strength in options.strengths:
            for samples in options.samples:
                for wrong in options.wrong:
                    _row(reference, Setting(samples, strength, wrong, options.twice), options.sets)
    except (BundleError, ValueError) as error:
        raise SystemExit(str(error)) from error


def _row(reference: SpectralReference, setting: Setting, sets: int) -> None:
    results = [tried(reference, setting, seed) for seed in range(sets)]
    accepted = sum(isinstance(result, Candidate) for result in results)
    low, high = Rate(accepted, sets).interval
    gates = [result.gate for result in results if result.gate is not None]
    old, new = (np.mean([getattr(gate, name) for gate in gates]) for name in ("old_auc", "new_auc"))
    sys.stdout.write(
        f"{setting.strength:8g} {setting.samples:7d} {setting.wrong:5.0%} {accepted:8d} {sets:2d}   "
        f"{low:.3f} - {high:.3f}   {old:.3f} -> {new:.3f}\n"
    )
    sys.stdout.flush()


def shipped_reference(directory: Path | None) -> SpectralReference:
    """That of a bundle, by default of the one that ships. Raises BundleError."""
    bundle = Bundle.load(directory)
    if bundle.manifest.spectral is None:
        raise BundleError(f"{bundle.directory}: has no spectral reference")
    return SpectralReference.load(bundle.path(bundle.manifest.spectral.file))


if __name__ == "__main__":
    main()
