"""A latent diffusion model as the bench uses it: prompt and seed to pixels, pixels to training loss.

The same class holds Stable Diffusion 1/2 and XL checkpoints in diffusers' form (a directory or a hub id) and the
toy model, whose prompts are rows of an embedding table. Needs the `torch` extra.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.media.encode import Pixels
from pipeline.training.adapters.prompts import TOY_PROMPTS
from pipeline.training.backbone import required
from pipeline.training.tensors import read_tensors

torch: Any = required("torch")

_TABLE = "prompts.safetensors"
SAMPLER = "DDIM"


class ModelUnfit(Exception):
    """A checkpoint that is absent or of a kind that the bench cannot drive; says what would do."""


class Condition(Protocol):
    """Prompts by number, as keyword arguments of the denoiser."""

    @property
    def count(self) -> int:
        """How many prompts there are."""
        ...

    def __call__(self, prompt_ids: Sequence[int | None], size_px: int) -> dict[str, Any]:
        """One entry an image; None is the empty prompt."""
        ...


class PromptTable:
    """One learned vector a prompt; the last row is the empty prompt. float32 (P + 1, 1, D)."""

    def __init__(self, table: Any) -> None:
        self.table = table

    @property
    def count(self) -> int:
        """Rows but the empty prompt."""
        return int(self.table.shape[0]) - 1

    def __call__(self, prompt_ids: Sequence[int | None], size_px: int) -> dict[str, Any]:
        """Rows of the table."""
        rows = [self.count if number is None else number for number in prompt_ids]
        return {"encoder_hidden_states": self.table[torch.tensor(rows, device=self.table.device)]}


class TextPrompts:
    """Texts through the text encoders of a Stable Diffusion 1/2 or XL pipeline."""

    def __init__(self, pipeline: Any, texts: Sequence[str], device: str) -> None:
        self.pipeline = pipeline
        self.texts = tuple(texts)
        self.device = device
        self.encoded: dict[int | None, Any] = {}

    @property
    def count(self) -> int:
        """Number of texts."""
        return len(self.texts)

    def __call__(self, prompt_ids: Sequence[int | None], size_px: int) -> dict[str, Any]:
        """Each text is encoded once and kept."""
        for number in set(prompt_ids) - set(self.encoded):
            text = "" if number is None else self.texts[number]
            with torch.no_grad():
                self.encoded[number] = self.pipeline.encode_prompt(
                    prompt=text, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
                )
        states = torch.cat([self.encoded[number][0] for number in prompt_ids])
        if len(self.encoded[prompt_ids[0]]) < 4:
            return {"encoder_hidden_states": states}
        pooled = torch.cat([self.encoded[number][2] for number in prompt_ids])
        # SDXL's micro-conditioning: original size, crop corner and target size.
        times = torch.tensor([[size_px, size_px, 0, 0, size_px, size_px]] * len(prompt_ids), device=states.device)
        return {
            "encoder_hidden_states": states,
            "added_cond_kwargs": {"text_embeds": pooled, "time_ids": times.to(states.dtype)},
        }


class LatentDiffusion:
    """Autoencoder, denoiser, noise schedule and prompts.

    Attributes:
        name: directory name in the bench's layout.
        vae_name: what decodes the latents, for the manifest.
        denoiser: the network that adapters go into; predicts noise or velocity as its schedule says.
        size_px: side of the square images.
    """

    def __init__(
        self,
        name: str,
        condition: Condition,
        *,
        vae: Any,
        vae_name: str,
        denoiser: Any,
        scheduler: Any,
        size_px: int,
    ) -> None:
        self.name = name
        self.vae_name = vae_name
        self.vae = vae.eval().requires_grad_(False)
        self.denoiser = denoiser.eval().requires_grad_(False)
        self.scheduler = scheduler
        self.condition = condition
        self.size_px = size_px

    @property
    def device(self) -> Any:
        """Where the denoiser lies."""
        return next(self.denoiser.parameters()).device

    def encode(self, images: Sequence[Pixels]) -> Any:
        """Latents, float32 (N, C, H/s, W/s), of uint8 (S, S, 3) images."""
        pixels = torch.from_numpy(np.stack(images)).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        with torch.no_grad():
            encoded = self.vae.encode(pixels)
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return (latents - _shift(self.vae)) * self.vae.config.scaling_factor

    def decode(self, latents: Any) -> list[Pixels]:
        """uint8 (S, S, 3) images, one at a time so that memory does not grow with the batch."""
        images: list[Pixels] = []
        for latent in latents / self.vae.config.scaling_factor + _shift(self.vae):
            with torch.no_grad():
                sample = self.vae.decode(latent[None]).sample[0]
            pixels = ((sample.float() + 1.0) * 127.5).round().clamp(0, 255).permute(1, 2, 0)
            images.append(pixels.to(torch.uint8).cpu().numpy())
        return images

    def loss(self, latents: Any, prompt_ids: Sequence[int | None], generator: Any) -> Any:
        """Mean squared error of the denoiser's prediction at random times (Ho et al. 2020, eq. 14)."""
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        times = torch.randint(0, self.scheduler.config.num_train_timesteps, (len(latents),), generator=generator)
        times = times.to(latents.device)
        noisy = self.scheduler.add_noise(latents, noise, times)
        predicted = self.denoiser(noisy, times, **self.condition(prompt_ids, self.size_px)).sample
        wanted = noise
        if self.scheduler.config.prediction_type == "v_prediction":
            wanted = self.scheduler.get_velocity(latents, noise, times)
        return torch.nn.functional.mse_loss(predicted.float(), wanted.float())

    def generate(
        self, prompt_ids: Sequence[int], seeds: Sequence[int], steps: int, guidance: float, before_step: Any = None
    ) -> list[Pixels]:
        """Images of prompts; equal prompt and seed start from equal noise on every device.

        Args:
            prompt_ids: one an image.
            seeds: of the initial noise, one an image.
            steps: of the sampler.
            guidance: classifier-free guidance scale (Ho and Salimans 2022); 1 is none.
            before_step: called with the step's index and their number, to switch adapters on the way.
        """
        shape = (self.denoiser.config.in_channels, *self._latent_size())
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        latents = torch.stack(noise).to(self.device) * self.scheduler.init_noise_sigma
        given = self.condition(prompt_ids, self.size_px)
        empty = self.condition([None] * len(prompt_ids), self.size_px) if guidance != 1.0 else None
        self.scheduler.set_timesteps(steps)
        for index, time in enumerate(self.scheduler.timesteps):
            if before_step is not None:
                before_step(index, steps)
            with torch.no_grad():
                scaled = self.scheduler.scale_model_input(latents, time)
                predicted = self.denoiser(scaled, time, **given).sample
                if empty is not None:
                    free = self.denoiser(scaled, time, **empty).sample
                    predicted = free + guidance * (predicted - free)
            latents = self.scheduler.step(predicted, time, latents).prev_sample
        return self.decode(latents)

    def _latent_size(self) -> tuple[int, int]:
        side = self.size_px // stride(self.vae)
        return side, side


def load_model(source: str, name: str, size_px: int, device: str, prompts: Sequence[str] = ()) -> LatentDiffusion:
    """A toy directory, or a Stable Diffusion 1/2 or XL checkpoint from a directory or a hub id.

    Raises:
        ModelUnfit: another kind of checkpoint, or a text model without prompts.
    """
    if Path(source, TOY_PROMPTS).is_file():
        return load_toy(Path(source), name, device)
    diffusers = required("diffusers")
    try:
        pipeline = diffusers.DiffusionPipeline.from_pretrained(source).to(device)
    except (OSError, ValueError) as error:
        raise ModelUnfit(f"{source}: {error}; give a directory or hub id in diffusers' form") from error
    if not hasattr(pipeline, "unet") or not hasattr(pipeline, "encode_prompt"):
        raise ModelUnfit(f"{source}: a {type(pipeline).__name__}; the bench drives Stable Diffusion 1, 2 and XL")
    if not prompts:
        raise ModelUnfit(f"{source}: takes text; give a file with one prompt a line")
    pipeline.vae.to(torch.float32)
    scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    condition = TextPrompts(pipeline, prompts, device)
    return LatentDiffusion(
        name,
        condition,
        vae=pipeline.vae,
        vae_name=f"{source} vae",
        denoiser=pipeline.unet,
        scheduler=scheduler,
        size_px=size_px,
    )


def save_toy(model: LatentDiffusion, directory: Path, table: Any, facts: dict[str, Any]) -> None:
    """Autoencoder, denoiser and schedule in diffusers' form; the prompt table and what is known beside them."""
    directory.mkdir(parents=True, exist_ok=True)
    model.vae.save_pretrained(directory / "vae")
    model.denoiser.save_pretrained(directory / "unet")
    model.scheduler.save_pretrained(directory / "scheduler")
    required("safetensors.torch").save_file({"table": table.detach().cpu().contiguous()}, str(directory / _TABLE))
    facts = {**facts, "vae": model.vae_name, "size_px": model.size_px}
    (directory / TOY_PROMPTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def load_toy(directory: Path, name: str, device: str) -> LatentDiffusion:
    """What `save_toy` wrote."""
    diffusers = required("diffusers")
    facts = json.loads((directory / TOY_PROMPTS).read_text(encoding="utf-8"))
    vae = diffusers.AutoencoderTiny.from_pretrained(directory / "vae").to(device)
    unet = diffusers.UNet2DConditionModel.from_pretrained(directory / "unet").to(device)
    scheduler = diffusers.DDIMScheduler.from_pretrained(directory / "scheduler")
    table = read_tensors(directory / _TABLE)["table"].to(device)
    return LatentDiffusion(
        name,
        PromptTable(table),
        vae=vae,
        vae_name=facts["vae"],
        denoiser=unet,
        scheduler=scheduler,
        size_px=facts["size_px"],
    )


def stride(vae: Any) -> int:
    """Pixels a latent, each way."""
    channels = getattr(vae.config, "block_out_channels", None) or vae.config.decoder_block_out_channels
    return int(2 ** (len(channels) - 1))


def _shift(vae: Any) -> float:
    return float(getattr(vae.config, "shift_factor", None) or 0.0)
