"""`mediasieve bundle train`, `import` and `calibrate`. Torch is loaded when a command runs, not before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer
from pydantic import ValidationError
from rich.console import Console

from pipeline.detection.bundle import Bundle
from pipeline.detection.calibration import Method
from pipeline.detection.classifier.preprocess import CropSpec

Kind: TypeAlias = Literal["efficientnet_b0", "resnet50", "univfd", "vit_s16"]
Network: TypeAlias = Literal["small", "efficientnet_lite0", "efficientnet_b0", "resnet50", "vit_small"]

_console = Console(highlight=False)

Out = Annotated[Path, typer.Option("--out", help="New directory for the bundle.")]
Version = Annotated[str, typer.Option("--bundle-version", help="Named in every decision.")]
Licence = Annotated[str | None, typer.Option(help="Of the weights; goes into manifest and model card.")]


class TrainingRefused(Exception):
    """A training, import or calibration that cannot go on; the text has the way out."""


def train(
    data: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder with images and manifest.jsonl.")],
    *,
    out: Out,
    decoders: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of NAME_encoder/NAME_decoder files, or of home-made upsamplers. Repeatable."),
    ] = None,
    vae: Annotated[
        list[str] | None, typer.Option(help="diffusers AutoencoderKL: WHERE[@COMMIT][#SUBFOLDER]. Repeatable.")
    ] = None,
    upscaler: Annotated[list[Path] | None, typer.Option(help="Real-ESRGAN-form checkpoint. Repeatable.")] = None,
    hold_out_family: Annotated[
        list[str] | None, typer.Option(help="Never trained on; the AUC shown is of these. Repeatable.")
    ] = None,
    architecture: Annotated[Network, typer.Option(help="small for a CPU; the others for a GPU.")] = "small",
    steps: Annotated[int, typer.Option(help="Gradient steps in all.")] = 2000,
    size_px: Annotated[int, typer.Option(help="Side of a training crop.")] = 192,
    pairs_per_step: Annotated[int, typer.Option(help="In each process.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="Its peak.")] = 1e-3,
    labelled_share: Annotated[float, typer.Option(help="Share of pairs with a labelled generated image.")] = 0.0,
    curriculum: Annotated[bool, typer.Option("--curriculum", help="lossless, q98, q90, then mixed.")] = False,
    history_control: Annotated[
        bool, typer.Option(help="Shrink JPEG photographs off their grid before pairing.")
    ] = True,
    matched_negatives: Annotated[
        bool, typer.Option(help="Add photographs softened to the reconstruction's PSNR as real.")
    ] = True,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Start from timm's weights.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    loaders: Annotated[int, typer.Option(help="Processes that make pairs; 0: the trainer.")] = 0,
    check_every_steps: Annotated[int, typer.Option(help="Between checkpoints.")] = 100,
    held_out_pairs: Annotated[int, typer.Option(help="Looked at at each checkpoint.")] = 64,
    half: Annotated[bool, typer.Option("--half", help="Store weights as float16, not float32.")] = False,
    seed: Annotated[int, typer.Option(help="Decides weights and crops.")] = 0,
    version: Version = "trained",
    licence: Licence = None,
) -> None:
    """Train on photographs against their own reconstructions, and write a bundle.

    OUT.run beside it holds checkpoint and learning curves; the same command goes on from there. Several GPUs:
    torchrun --nproc-per-node N --no-python mediasieve bundle train ...

    Example: mediasieve bundle train ./data --decoders ./decoders --hold-out-family taef1 --out ./my-bundle
    """
    from pipeline.training.export import ExportRefused  # noqa: PLC0415 - torch only when it is wanted
    from pipeline.training.recipe import Recipe, bake  # noqa: PLC0415 - as above
    from pipeline.training.train_network import ResumeRefused  # noqa: PLC0415 - as above

    settings = {
        "architecture": architecture,
        "pretrained": pretrained,
        "size_px": size_px,
        "pairs_per_step": pairs_per_step,
        "learning_rate": learning_rate,
        "seed": seed,
        "device": device,
        "precision": precision,
        "loader_processes": loaders,
        "check_every_steps": check_every_steps,
        "held_out_pairs": held_out_pairs,
    }
    content = {
        "data": data,
        "decoders": decoders or (),
        "vaes": vae or (),
        "upscalers": upscaler or (),
        "held_out_families": hold_out_family or (),
        "steps": steps,
        "labelled_share": labelled_share,
        "curriculum": curriculum,
        "shrink_jpegs": history_control,
        "matched_negatives": matched_negatives,
        "storage": "half" if half else "single",
        "train": settings,
    }
    if out.exists() and any(out.iterdir()):
        raise TrainingRefused(f"{out}: holds files already; give a new directory")
    try:
        baked = bake(Recipe.model_validate(content), out, out.with_name(f"{out.name}.run"), version, licence)
    except ValidationError as error:
        raise TrainingRefused(_first(error)) from error
    except (ValueError, OSError, ResumeRefused, ExportRefused) as error:
        raise TrainingRefused(str(error)) from error
    if baked is not None:
        _console.print(f"held-out AUC-ROC {baked.held_out_auc:.3f} ({baked.held_out}); curves {baked.curves}")
        _print_done(out, baked.logit_gap)


def import_(
    kind: Annotated[Kind, typer.Argument(help="What the checkpoint is.")],
    checkpoint: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help=".safetensors, or .pth of tensors.")],
    *,
    out: Out,
    calibrate: Annotated[
        Path | None, typer.Option("--calibrate", exists=True, help="Labelled images (any layout that evaluate reads).")
    ] = None,
    backbone: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="univfd: folder of the CLIP vision tower.")
    ] = None,
    size_px: Annotated[int | None, typer.Option(help="Side of a crop; CNNs only. Default 256.")] = None,
    max_crops: Annotated[int, typer.Option(min=1, max=5, help="Crops an image.")] = 4,
    single: Annotated[bool, typer.Option("--single", help="Store weights as float32, not float16.")] = False,
    version: Version = "imported",
    licence: Licence = None,
) -> None:
    """A published detector's checkpoint as a bundle, exported to ONNX and checked against torch.

    Without --calibrate its raw logits count as they are; `bundle calibrate` can follow.

    Example: mediasieve bundle import vit_s16 commfor.safetensors --out ./commfor --calibrate ./labelled
    """
    from pipeline.training.assemble import UNSTATED, assemble  # noqa: PLC0415 - torch only when it is wanted
    from pipeline.training.export import ExportRefused  # noqa: PLC0415 - as above
    from pipeline.training.importers.base import ImportOptions, ImportRefused  # noqa: PLC0415 - as above
    from pipeline.training.importers.kinds import IMPORTERS  # noqa: PLC0415 - as above

    try:
        imported = IMPORTERS[kind](checkpoint, ImportOptions(size_px, backbone))
        gap = assemble(
            out,
            imported.net,
            imported.normalisation,
            model=imported.model,
            crops=CropSpec(size_px=imported.size_px, max_crops=max_crops),
            version=version,
            licence=licence or UNSTATED,
            note=imported.note,
            storage="single" if single else "half",
        )
    except ExportRefused as error:
        raise TrainingRefused(f"{error} (--single)" if not single else str(error)) from error
    except ValidationError as error:
        raise TrainingRefused(_first(error)) from error
    except ImportRefused as error:
        raise TrainingRefused(str(error)) from error
    if calibrate is not None:
        calibrate_bundle(out, calibrate)
    _print_done(out, gap)


def calibrate_bundle(
    directory: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Bundle directory; it is rewritten.")],
    source: Annotated[
        Path,
        typer.Argument(exists=True, help="Labelled images, or scores.jsonl that `evaluate` wrote with this bundle."),
    ],
    method: Annotated[
        Method | None, typer.Option(help="Default: temperature under 1,000 images, isotonic from there.")
    ] = None,
    stage: Annotated[
        Literal["classifier", "mllm"], typer.Option(help="mllm: ask the configured model about the labelled images.")
    ] = "classifier",
    every_image: Annotated[
        bool, typer.Option("--every-image", help="mllm: ask about images too that do not reach stage 3.")
    ] = False,
) -> None:
    """Fit the calibration of a bundle's classifier or MLLM anew, and seal the bundle.

    For the MLLM also its weight in the policy, which is 0 unless its 95 % interval over sources lies above 0. Needs 50
    answers of each class; the model is that of the settings (section mllm).

    Example: mediasieve bundle calibrate ./commfor ./labelled

    Example: mediasieve bundle calibrate ./mine ./labelled --stage mllm
    """
    if stage == "mllm":
        if method is not None:
            raise TrainingRefused("--method is for --stage classifier; the map of the MLLM is chosen by the answers")
        _calibrate_mllm(directory, source, every_image)
        return
    if every_image:
        raise TrainingRefused("--every-image is for --stage mllm")
    from pipeline.evaluation.layouts import DatasetError  # noqa: PLC0415 - with what it imports, only when wanted
    from pipeline.training.recalibrate import recalibrate  # noqa: PLC0415 - as above

    try:
        found = recalibrate(directory, source, method)
    except DatasetError as error:
        raise TrainingRefused(str(error)) from error
    except ValueError as error:
        raise TrainingRefused(f"{source}: {error}") from error
    form = f"table of {len(found.calibration.table)}" if found.calibration.table else "temperature and bias"
    _console.print(f"{found.items} images, {found.left_out} left out: {form}", soft_wrap=True)
    for name in ("ece", "brier", "nll"):
        before, after = getattr(found.before, name), getattr(found.after, name)
        _console.print(f"  {name:6} {before:.4f} -> {after:.4f}  (on the images it was fitted on)")


def _calibrate_mllm(directory: Path, source: Path, every_image: bool) -> None:
    from pipeline.evaluation.stacking import StackingError  # noqa: PLC0415 - with what it imports, only when wanted
    from pipeline.settings import load_settings  # noqa: PLC0415 - as above
    from pipeline.training.calibrate_mllm import NotCalibrated, calibrate_mllm  # noqa: PLC0415 - as above
    from workers.mllm.worker import make_verifier  # noqa: PLC0415 - as above
    from workers.settings import Settings  # noqa: PLC0415 - as above

    settings = load_settings(Settings).mllm
    if settings.backend == "unconfigured":
        raise TrainingRefused("no MLLM is configured; set mllm.backend and its section, see docs/mllm.md")
    verifier = make_verifier(settings, Bundle.load(directory))
    try:
        found = calibrate_mllm(directory, source, verifier, every_image=every_image, concurrency=settings.concurrency)
    except (NotCalibrated, StackingError) as error:
        raise TrainingRefused(f"{source}: {error}") from error
    fitted, about = found.fitted, found.calibration
    _console.print(f"{found.answers} answers of {about.model}, {settings.passes} passes, basis {about.basis.value}")
    for why, count in sorted(found.left_out.items()):
        _console.print(f"  left out: {count} ({why})", soft_wrap=True)
    low, high = fitted.interval
    _console.print(f"  w3 {fitted.estimate:.3f}, 95 % {low:.3f} to {high:.3f} over sources: weight {fitted.weight:g}")
    _console.print(f"  log loss on other sources {fitted.loss_without:.4f} -> {fitted.loss_with:.4f} with w3")
    _console.print(f"  policy {found.policy.version}; next: mediasieve policy verify {directory}", soft_wrap=True)


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'options'}: {first['msg']}"


def _print_done(out: Path, gap: float) -> None:
    version = Bundle.load(out).version
    _console.print(f"{out}: bundle {version}; ONNX and torch differ by at most {gap:.1e} in a logit", soft_wrap=True)
    _console.print("next: mediasieve evaluate, then mediasieve plan, for thresholds of its own", soft_wrap=True)
