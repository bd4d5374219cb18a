"""Add a generator family to a spectral reference from 10-200 of its images, or take one away.

    python -m pipeline.training.spectral_family add REFERENCE --name NAME --images DIR --out DIR
    python -m pipeline.training.spectral_family remove REFERENCE --name NAME --out DIR

The new reference is a file of its own in --out, named by its content hash; the old one stays as it was. To use it, put
it into a bundle: `python -m pipeline.detection.bundle seal BUNDLE --spectral FILE`.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.detection.spectral import features, kernel, strata
from pipeline.detection.spectral.few_shot import FamilyRefused, Gate, add_family, remove_family, save_by_hash
from pipeline.detection.spectral.kernel import Float64
from pipeline.detection.spectral.reference import SpectralReference, SpectralReferenceError
from pipeline.media.decode import decode_image
from pipeline.media.errors import MediaError
from pipeline.training.spectral_copies import ALIKE, columns, copies_of

SIZE_PX = 256


def samples_of(paths: Sequence[Path]) -> dict[str, Float64]:
    """Features (n, F) of a copy of every image in every codec, by stratum: all cut to 256 px and treated alike.

    Raises:
        ValueError: an image is not decodable, too small, flat or without colour; the text names it.
    """
    size = strata.size_bucket(SIZE_PX)
    measured = []
    for path in paths:
        found = measured_copies(path.read_bytes(), str(path))
        missing = [codec for codec in strata.CODECS if f"{codec}/{size}" not in found]
        if missing:
            raise ValueError(
                f"{path}: says nothing as {missing[0]}: below {SIZE_PX + 8} px, flat, letterboxed or colourless; leave"
                " it out"
            )
        measured.append(found)
    return stacked(measured, [f"{codec}/{size}" for codec in strata.CODECS])


def measured_copies(data: bytes, name: str) -> dict[str, list[float]]:
    """Features in the order of `features.NAMES` of a copy of one image in every codec and size that it yields.

    Keys are names of strata, such as `lossless/128_383`. `name` is for the text of an error.

    Raises:
        ValueError: it is not decodable; the text names it.
    """
    try:
        original = decode_image(data)
    except MediaError as error:
        raise ValueError(f"{name}: {error}; leave it out") from error
    found: dict[str, list[float]] = {}
    for copy in copies_of(original.rgb, hashlib.sha256(data).hexdigest(), (ALIKE,)):
        image = decode_image(copy.data)
        if features.not_applicable(image.luma) is None:
            area = kernel.analysed_area(image.luma)
            measurement = features.measure(image.luma, image.rgb)
            if not measurement.colourless:
                stratum = strata.stratum(image.facts, (area.shape[0], area.shape[1]))
                found[stratum] = [measurement.values[feature] for feature in features.NAMES]
    return found


def stacked(measured: Sequence[dict[str, list[float]]], wanted: Sequence[str]) -> dict[str, Float64]:
    """Features (n, F) that count in each of the strata, images in the order given; each must have them all."""
    return {
        stratum: np.array([found[stratum] for found in measured])[:, columns(stratum.partition("/")[0])]
        for stratum in wanted
        if measured
    }


def _served(reference: SpectralReference, samples: dict[str, Float64]) -> dict[str, Float64]:
    return {reference.lookup(stratum)[0]: values for stratum, values in samples.items()}


def _summary(gate: Gate) -> str:
    return (
        f"{gate.samples} samples: AUC {gate.old_auc:.3f} -> {gate.new_auc:.3f} with each left out (photographs by luck"
        f" {gate.luck:.3f}), FPR {gate.old_fpr:.3f} -> {gate.new_fpr:.3f}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Add or remove; exits with status 1 and the reason when the samples are refused or an input is bad."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.spectral_family")
    commands = parser.add_subparsers(dest="command", required=True)
    adding, removing = commands.add_parser("add"), commands.add_parser("remove")
    for command in (adding, removing):
        command.add_argument("reference", type=Path, help="the .npz to derive from")
        command.add_argument("--name", required=True, help="of the generator family")
        command.add_argument("--out", type=Path, required=True, help="directory for the new .npz")
    adding.add_argument("--images", type=Path, required=True, help="directory with 10-200 images of the family alone")
    options = parser.parse_args(arguments)
    try:
        reference = SpectralReference.load(options.reference)
        if options.command == "add":
            paths = sorted(path for path in options.images.iterdir() if path.is_file())
            changed, gate = add_family(reference, options.name, _served(reference, samples_of(paths)))
            sys.stdout.write(_summary(gate) + "\n")
        else:
            changed = remove_family(reference, options.name)
    except (ValueError, OSError, FamilyRefused, SpectralReferenceError) as error:
        raise SystemExit(str(error)) from error
    options.out.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(f"{save_by_hash(changed, options.out)}\n")


if __name__ == "__main__":
    main()
