"""Trains the toy latent diffusion model: minutes on one CPU thread, textures and colours but hardly objects.

It exists to run the bench's code end to end where no GPU and no hub model is at hand. It says nothing about
what real generators do, and no quality is claimed for it. Needs the `torch` extra and diffusers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.media.encode import Pixels
from pipeline.training.adapters.model import LatentDiffusion, PromptTable, save_toy, stride
from pipeline.training.adapters.photographs import Photograph, layout_prompts
from pipeline.training.backbone import required
from pipeline.training.tensors import read_tensors

torch: Any = required("torch")

Progress = Callable[[str, int, int, float], None]
"""Called with the phase, steps done, steps in all, and the running loss."""

UNET_CHANNELS = (32, 64, 128)
PROMPT_WIDTH = 64
EMA_DECAY = 0.995
EMPTY_PROMPT_SHARE = 0.1
VAE_CROP_PX = 96
"""Side of the autoencoder's training crops; a multiple of every stride."""

_GRADIENT_WEIGHT = 1.0


class ToyOptions(BaseModel):
    """How the toy model is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_px: Annotated[int, Field(multiple_of=32, ge=32, le=512)] = Field(256, description="Side of the images.")
    prompts: Annotated[int, Field(ge=2, le=256)] = Field(12, description="Toy prompts: clusters of photographs.")
    vae_steps: Annotated[int, Field(ge=1)] = Field(450, description="Training steps of an own autoencoder.")
    vae_channels: Annotated[int, Field(multiple_of=8, ge=8)] = Field(16, description="Its width at every stage.")
    vae_halvings: Annotated[int, Field(ge=1, le=5)] = Field(4, description="Its stride is 2 to the power of this.")
    latent_channels: Annotated[int, Field(ge=1, le=32)] = Field(8, description="Channels of its latents.")
    steps: Annotated[int, Field(ge=1)] = Field(800, description="Training steps of the denoiser.")
    batch: Annotated[int, Field(ge=1)] = Field(8, description="Images a step.")
    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-3, description="Peak of the cosine schedule.")
    seed: int = Field(0, description="Of weights, order and noise.")


def train_toy(
    photographs: Sequence[Photograph],
    out: Path,
    options: ToyOptions,
    progress: Progress,
    tiny: tuple[Path, Path] | None = None,
) -> LatentDiffusion:
    """Train the model and write it to `out`; `load_toy` reads it back.

    Args:
        photographs: squares of `options.size_px`, all used for training.
        out: directory to write.
        options: sizes and steps.
        progress: told every step.
        tiny: encoder and decoder file of a published tiny autoencoder; None trains an own one first.

    Raises:
        ValueError: tiny autoencoder files of another architecture.
    """
    torch.manual_seed(options.seed)
    images = [photo.pixels for photo in photographs]
    vae = train_autoencoder(images, options, progress) if tiny is None else published_autoencoder(*tiny)
    vae_name = "own tiny autoencoder" if tiny is None else tiny[1].stem
    denoiser, scheduler = new_denoiser(int(vae.config.latent_channels), options.size_px // stride(vae))
    table = torch.nn.Parameter(torch.randn(options.prompts + 1, 1, PROMPT_WIDTH) * 0.5)
    model = LatentDiffusion(
        out.name,
        PromptTable(table),
        vae=vae,
        vae_name=vae_name,
        denoiser=denoiser,
        scheduler=scheduler,
        size_px=options.size_px,
    )
    labels = layout_prompts(photographs, options.prompts, options.seed)
    model.denoiser = _train_denoiser(model, table, (images, labels), options, progress)
    facts = {
        "options": options.model_dump(),
        "photographs": len(photographs),
        "prompt_of": _prompt_of(photographs, labels),
    }
    save_toy(model, out, table, facts)
    return model


def published_autoencoder(encoder: Path, decoder: Path) -> Any:
    """A published tiny autoencoder (TAESD form) as diffusers' AutoencoderTiny.

    Raises:
        ValueError: tensors of another architecture.
    """
    net = required("diffusers").AutoencoderTiny(latent_channels=int(read_tensors(decoder)["1.weight"].shape[1]))
    tensors = {f"encoder.layers.{name}": value for name, value in read_tensors(encoder).items()}
    for name, value in read_tensors(decoder).items():
        number, _, rest = name.partition(".")
        # Layer 0 of the published decoder squashes the latents; diffusers does so outside of its list.
        tensors[f"decoder.layers.{int(number) - 1}.{rest}"] = value
    try:
        net.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{decoder}: {error}; give a TAESD encoder and decoder") from error
    return net


def new_denoiser(latent_channels: int, latent_px: int) -> tuple[Any, Any]:
    """A small untrained UNet2DConditionModel and its DDIM schedule."""
    diffusers = required("diffusers")
    down, up = ("CrossAttnDownBlock2D",) * 2, ("CrossAttnUpBlock2D",) * 2
    unet = diffusers.UNet2DConditionModel(
        sample_size=latent_px,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=UNET_CHANNELS,
        down_block_types=("DownBlock2D", *down),
        up_block_types=(*up, "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=PROMPT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, set_alpha_to_one=False
    )
    return unet, scheduler


def train_autoencoder(images: Sequence[Pixels], options: ToyOptions, progress: Progress) -> Any:
    """An AutoencoderTiny of few channels on random crops: absolute error of pixels and of their gradients.

    The latents are scaled to unit deviation by `scaling_factor`.
    """
    stages = options.vae_halvings + 1
    channels, blocks = (options.vae_channels,) * stages, (1,) * stages
    net = required("diffusers").AutoencoderTiny(
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks,
        latent_channels=options.latent_channels,
    )
    optimiser, schedule = _adam(net.parameters(), options.vae_steps, 2e-3)
    random = np.random.default_rng(options.seed)
    running: float | None = None
    for step in range(options.vae_steps):
        crops = _crops(images, min(VAE_CROP_PX, options.size_px), options.batch // 2 or 1, random)
        restored = net.decode(net.encode(crops).latents).sample
        error = (restored - crops).abs().mean() + _GRADIENT_WEIGHT * _gradient_error(restored, crops)
        running = _step(optimiser, schedule, error, running)
        progress("autoencoder", step + 1, options.vae_steps, running)
    with torch.no_grad():
        latents = net.encode(_crops(images, options.size_px, 32, random)).latents
    net.register_to_config(scaling_factor=float(1.0 / latents.std()))
    return net.eval()


def _train_denoiser(
    model: LatentDiffusion,
    table: Any,
    labelled: tuple[Sequence[Pixels], Sequence[int]],
    options: ToyOptions,
    progress: Progress,
) -> Any:
    """Trains denoiser and table in place; returns the exponential average of the denoiser, which is the one to keep."""
    images, labels = labelled
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in images]
    latents = torch.cat([model.encode(part[i : i + 8]) for part in (images, mirrored) for i in range(0, len(part), 8)])
    prompts = [*labels, *labels]
    net = model.denoiser.train().requires_grad_(True)
    average = copy.deepcopy(net)
    parameters = [*net.parameters(), table]
    optimiser, schedule = _adam(parameters, options.steps, options.learning_rate)
    random = np.random.default_rng(options.seed + 1)
    noise = torch.Generator().manual_seed(options.seed)
    running: float | None = None
    for step in range(options.steps):
        chosen = random.integers(len(latents), size=options.batch)
        dropped = random.random(options.batch) < EMPTY_PROMPT_SHARE
        given = [None if drop else prompts[number] for number, drop in zip(chosen, dropped, strict=True)]
        error = model.loss(latents[chosen], given, noise)
        running = _step(optimiser, schedule, error, running)
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            for kept, now in zip(average.parameters(), net.parameters(), strict=True):
                kept.lerp_(now, 1.0 - decay)
        progress("denoiser", step + 1, options.steps, running)
    return average.eval().requires_grad_(False)


def _adam(parameters: Any, steps: int, learning_rate: float) -> tuple[Any, Any]:
    optimiser = torch.optim.AdamW(list(parameters), lr=learning_rate, weight_decay=1e-4)
    warm = min(50, max(1, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm, 0.02 + 0.49 * (1 + np.cos(np.pi * min(step / steps, 1.0))))
    )
    return optimiser, schedule


def _step(optimiser: Any, schedule: Any, error: Any, running: float | None) -> float:
    """One update; returns the running mean of the loss."""
    optimiser.zero_grad(set_to_none=True)
    error.backward()
    torch.nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], 1.0)
    optimiser.step()
    schedule.step()
    value = float(error.detach())
    return value if running is None else 0.98 * running + 0.02 * value


def _gradient_error(restored: Any, wanted: Any) -> Any:
    across = (restored.diff(dim=3) - wanted.diff(dim=3)).abs().mean()
    return across + (restored.diff(dim=2) - wanted.diff(dim=2)).abs().mean()


def _crops(images: Sequence[Pixels], size_px: int, count: int, random: np.random.Generator) -> Any:
    """Random crops, float32 (N, 3, S, S) within -1..1."""
    found = []
    for number in random.integers(len(images), size=count):
        image = images[number]
        top, left = (int(random.integers(side - size_px + 1)) for side in image.shape[:2])
        found.append(image[top : top + size_px, left : left + size_px])
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _prompt_of(photographs: Sequence[Photograph], labels: Sequence[int]) -> dict[str, int]:
    return {photo.key: label for photo, label in zip(photographs, labels, strict=True)}
