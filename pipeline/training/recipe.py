"""From photographs and decoders to a bundle: the recipe behind `mediasieve bundle train`. Needs the `torch` extra."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.detection.calibration import fit_calibration
from pipeline.detection.classifier.preprocess import CropSpec
from pipeline.training.assemble import UNSTATED, assemble
from pipeline.training.curves import draw_curves
from pipeline.training.dataset import Labelled, read_manifest, source_folds
from pipeline.training.decoders import load_diffusers, load_tiny_directory
from pipeline.training.degrade import STAGES, StageName
from pipeline.training.export import Storage
from pipeline.training.pairs import LabelledSampler, MixedSampler, PairSampler, PairSettings, PairSource, Reconstruct
from pipeline.training.super_resolution import load_upscaler
from pipeline.training.train_network import Phase, Trained, TrainSettings, train
from pipeline.training.upsamplers import load_upsamplers

HELD_OUT_OF = 5
"""One fold of so many holds the photographs that are only looked at."""

CURVES_PICTURE = "curves.png"
_VAE = re.compile(r"^(?P<where>[^@#]+)(@(?P<revision>[0-9a-f]{40}))?(#(?P<subfolder>[\w/-]+))?$")


class Recipe(BaseModel):
    """What is trained on, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Annotated[Path, Field(description="folder with manifest.jsonl")]
    decoders: Annotated[
        tuple[Path, ...], Field(description="folders of NAME_encoder/NAME_decoder files or of home-made upsamplers")
    ] = ()
    vaes: Annotated[
        tuple[str, ...], Field(description="diffusers AutoencoderKL: WHERE[@COMMIT][#SUBFOLDER], a directory or hub id")
    ] = ()
    upscalers: Annotated[tuple[Path, ...], Field(description="checkpoints of the Real-ESRGAN forms")] = ()
    held_out_families: Annotated[
        tuple[str, ...], Field(description="never trained on; the held-out pairs are of them alone")
    ] = ()
    steps: Annotated[int, Field(ge=1, description="gradient steps in all")] = 2000
    labelled_share: Annotated[float, Field(ge=0.0, le=1.0, description="share of labelled pairs")] = 0.0
    curriculum: Annotated[bool, Field(description="a quarter of the steps each: lossless, q98, q90, mixed")] = False
    shrink_jpegs: Annotated[bool, Field(description="see PairSettings")] = True
    matched_negatives: Annotated[bool, Field(description="see PairSettings")] = True
    storage: Annotated[Storage, Field(description="of the weights; half is refused where it moves a logit")] = "single"
    train: Annotated[TrainSettings, Field(description="network and optimiser")] = TrainSettings()

    @model_validator(mode="after")
    def _has_a_family(self) -> Self:
        if not self.decoders + self.vaes + self.upscalers:
            raise ValueError("decoders, vaes, upscalers: none given; pairs need at least one decoder")
        return self


@dataclass(frozen=True)
class Baked:
    """The bundle's file gap to torch, the held-out AUC, and how its photographs were held out."""

    logit_gap: float
    held_out_auc: float
    held_out: str
    curves: Path


def bake(recipe: Recipe, out: Path, run_directory: Path, version: str, licence: str | None = None) -> Baked | None:
    """Train, or go on, and write the bundle; None in all processes but the first.

    Args:
        recipe: what to do.
        out: new directory of the bundle.
        run_directory: checkpoint and curves.
        version: of the bundle.
        licence: of what was trained; None: not stated.

    Raises:
        ValueError: data, decoders or settings that do not fit together, or a network that learnt nothing.
        ResumeRefused, BundleError, ExportRefused: see `train` and `assemble`.
    """
    families = load_families(recipe)
    rows = read_manifest(recipe.data)
    training, held_out, how = split(rows)
    trained = train(
        _phases(recipe, training, families), _held_out(recipe, held_out, families), recipe.train, run_directory
    )
    if not trained.is_first:
        return None
    curves = run_directory / CURVES_PICTURE
    draw_curves(trained.curves, curves, recipe.train.architecture)
    calibration = fit_calibration(trained.held_out_logits, trained.held_out_synthetic)
    auc = trained.curves.held_out_auc[-1]
    gap = assemble(
        out,
        trained.net,
        trained.normalisation,
        model=f"{recipe.train.architecture}-pairs",
        crops=CropSpec(size_px=_serving_size(recipe.train)),
        version=version,
        licence=licence or UNSTATED,
        note=_note(recipe, sorted(families), trained, how),
        calibration=calibration,
        storage=recipe.storage,
    )
    return Baked(gap, auc, how, curves)


def load_families(recipe: Recipe) -> dict[str, Reconstruct]:
    """Every decoder by its family name.

    Raises:
        ValueError: a file that is no decoder, two families of one name, or a held-out name that is none of them.
    """
    found: list[tuple[str, Reconstruct]] = []
    for directory in recipe.decoders:
        if not directory.is_dir():
            raise ValueError(f"{directory}: no such folder; give one with decoder files")
        tiny = any(path.stem.endswith("_encoder") for path in directory.iterdir())
        loaded = load_tiny_directory(directory) if tiny else load_upsamplers(directory)
        if not loaded:
            raise ValueError(f"{directory}: no NAME_encoder/NAME_decoder files and no home-made upsampler in it")
        found += loaded.items()
    for vae in recipe.vaes:
        match = _VAE.match(vae)
        if match is None:
            raise ValueError(f"vae {vae}: expected WHERE[@COMMIT][#SUBFOLDER], COMMIT of 40 hex digits")
        found.append((vae, load_diffusers(match["where"], "kl", match["subfolder"], match["revision"])))
    found += [(path.stem, load_upscaler(path)) for path in recipe.upscalers]
    _check_names([name for name, _ in found], recipe.held_out_families)
    if recipe.train.device == "cuda" and not recipe.train.loader_processes:
        for _, reconstruct in found:
            reconstruct.net.to("cuda")  # type: ignore[attr-defined]  # every loader above gives an object with `net`
    return dict(found)


def _check_names(names: Sequence[str], held_out: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"families: {', '.join(sorted(n for n in names if names.count(n) > 1))}: named twice; rename")
    unknown = set(held_out) - set(names)
    if unknown:
        raise ValueError(f"hold-out family {', '.join(sorted(unknown))}: there are {', '.join(names)}")
    if set(names) == set(held_out):
        raise ValueError(f"hold-out family {', '.join(names)}: nothing is left to train on; hold out fewer")


def split(rows: Sequence[Labelled]) -> tuple[list[Labelled], list[Labelled], str]:
    """Training rows, held-out rows, and how: whole sources; with one source of photographs, single photographs."""
    if len({row.source for row in rows if not row.synthetic}) > 1:
        folds, how = source_folds(rows, HELD_OUT_OF), "whole sources"
        last = max(fold for fold, row in zip(folds, rows, strict=True) if not row.synthetic)
    else:
        folds, how = [int(row.sha256[:8], 16) % HELD_OUT_OF for row in rows], "photographs of the only source"
        last = HELD_OUT_OF - 1
    training = [row for fold, row in zip(folds, rows, strict=True) if fold != last]
    return training, [row for fold, row in zip(folds, rows, strict=True) if fold == last], how


def _phases(recipe: Recipe, rows: Sequence[Labelled], families: dict[str, Reconstruct]) -> list[Phase]:
    kept = {name: one for name, one in families.items() if name not in recipe.held_out_families}
    stages: list[StageName] = ["lossless", "q98", "q90", "mixed"] if recipe.curriculum else ["mixed"]
    phases = []
    for place, stage in enumerate(stages):
        steps = recipe.steps * (place + 1) // len(stages) - recipe.steps * place // len(stages)
        settings = _pair_settings(recipe, stage, recipe.train.seed)
        source: PairSource = PairSampler(rows, kept, settings)
        if recipe.labelled_share:
            source = MixedSampler(
                PairSampler(rows, kept, settings), LabelledSampler(rows, settings), recipe.labelled_share
            )
        phases.append(Phase(stage, source, steps))
    return phases


def _held_out(recipe: Recipe, rows: Sequence[Labelled], families: dict[str, Reconstruct]) -> PairSource:
    names = recipe.held_out_families or tuple(families)
    settings = _pair_settings(recipe, "mixed", recipe.train.seed + 1)
    return PairSampler(rows, {name: families[name] for name in names}, settings)


def _pair_settings(recipe: Recipe, stage: StageName, seed: int) -> PairSettings:
    return PairSettings(
        size_px=recipe.train.size_px,
        seed=seed,
        degrade=STAGES[stage],
        shrink_jpegs=recipe.shrink_jpegs,
        matched_negatives=recipe.matched_negatives,
    )


def _serving_size(settings: TrainSettings) -> int:
    """Convolutions take any size and see more in 256 px; a transformer takes what it was built for."""
    return settings.size_px if settings.architecture == "vit_small" else max(settings.size_px, CropSpec().size_px)


def _note(recipe: Recipe, families: Sequence[str], trained: Trained, how: str) -> str:
    tested = recipe.held_out_families or families
    return (
        f"Trained {recipe.steps} steps on {recipe.train.pairs_per_step} pairs each of photographs and their"
        f" reconstructions by {', '.join(n for n in families if n not in recipe.held_out_families)}"
        f" (labelled share {recipe.labelled_share}; JPEG-history control {'on' if recipe.shrink_jpegs else 'off'};"
        f" matched negatives {'on' if recipe.matched_negatives else 'off'}; seed {recipe.train.seed}).\n\n"
        f"AUC-ROC {trained.curves.held_out_auc[-1]:.3f} on {trained.held_out_logits.size} held-out crops of"
        f" {', '.join(tested)} ({how} held out). Calibrated on the same crops: run `mediasieve bundle calibrate` with"
        " labelled images before its scores mean probabilities."
    )
