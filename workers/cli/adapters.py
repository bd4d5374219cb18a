"""`mediasieve adapters`: images of adapters by kind and rank, for the question what rank does to detection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from pipeline.evaluation.layouts.base import DatasetError
from pipeline.training.adapters.photographs import read_photographs, with_prompts
from pipeline.training.adapters.prompts import PromptsUnfit, read_prompts
from pipeline.training.adapters.record import ManifestDamaged, OtherOptions
from pipeline.training.backbone import required

app = typer.Typer(help="Generate the adapter bench, or train the toy model for it.", no_args_is_help=True)
Photographs = Annotated[Path, typer.Argument(help="A dataset with real images, in any layout.")]


@app.command("train-toy")
def train_toy(
    photographs: Photographs,
    *,
    out: Annotated[Path, typer.Option(help="Directory of the model.")],
    steps: Annotated[int, typer.Option(min=1, help="Training steps of the denoiser.")] = 800,
    vae_steps: Annotated[int, typer.Option(min=1, help="Training steps of the autoencoder.")] = 450,
    batch: Annotated[int, typer.Option(min=1, help="Images a step.")] = 8,
    seed: int = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    tiny_encoder: Annotated[Path | None, typer.Option(help="A published tiny encoder instead of an own one.")] = None,
    tiny_decoder: Annotated[Path | None, typer.Option(help="Its decoder.")] = None,
) -> None:
    """Train a tiny latent diffusion model on photographs: minutes on one CPU thread, for trying the bench only.

    Example: mediasieve adapters train-toy ./photos --out ./toy
    """
    toy = required("pipeline.training.adapters.toy")
    if (tiny_encoder is None) != (tiny_decoder is None):
        raise typer.BadParameter("give --tiny-encoder and --tiny-decoder together, or neither")
    required("torch").set_num_threads(threads)
    options = toy.ToyOptions(steps=steps, vae_steps=vae_steps, batch=batch, seed=seed)
    tiny = None if tiny_encoder is None or tiny_decoder is None else (tiny_encoder, tiny_decoder)
    console = Console()
    images = read_photographs(photographs, options.size_px)
    with Progress(console=console) as bar:
        tasks: dict[str, TaskID] = {}

        def progress(phase: str, done: int, total: int, loss: float) -> None:
            task = tasks.get(phase)
            if task is None:
                task = tasks[phase] = bar.add_task(phase, total=total)
            bar.update(task, completed=done, description=f"{phase}, loss {loss:.4f}")

        toy.train_toy(images, out, options, progress, tiny)
    console.print(f"{out}: toy model of {len(images)} photographs", soft_wrap=True)


@app.command()
def generate(
    model: Annotated[str, typer.Argument(help="Toy directory, or a Stable Diffusion 1, 2 or XL directory or hub id.")],
    photographs: Photographs,
    *,
    out: Annotated[Path, typer.Option(help="Root of the bench; a run that was cut off goes on there.")],
    name: Annotated[str | None, typer.Option(help="Name of the base model in the bench.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help='For text models: JSON lines {"text": ..., "photographs": [keys]}.')
    ] = None,
    ranks: Annotated[str, typer.Option(help="Ranks, comma-separated.")] = "4,8,16,32,64",
    types: Annotated[str, typer.Option(help="Adapter types, comma-separated; none: all six.")] = "",
    adapters: Annotated[int, typer.Option(min=1, help="Adapters a type and rank.")] = 20,
    images: Annotated[int, typer.Option(min=1, help="Images an adapter.")] = 50,
    train_steps: Annotated[int, typer.Option(min=1, help="Training steps an adapter.")] = 500,
    train_batch: Annotated[int, typer.Option(min=1, help="Images a training step.")] = 4,
    learning_rate: Annotated[float, typer.Option(help="Of the adapters' training.")] = 1e-4,
    sampler_steps: Annotated[int, typer.Option(min=1, help="Steps of the sampler.")] = 30,
    guidance: Annotated[float, typer.Option(min=1, help="Classifier-free guidance; 1 is none.")] = 5.0,
    size_px: Annotated[int, typer.Option(help="Side of a text model's images.")] = 512,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    seed: int = 0,
) -> None:
    """Images by adapter type and rank, paired with base-model images of the same prompt and seed.

    Types: lora, dora, lokr, lora_4bit_base, stacked_lora, switched_lora. Read by `mediasieve evaluate`.

    Example: mediasieve adapters generate ./toy ./photos --out ./bench --adapters 3 --images 8
    """
    bench = required("pipeline.training.adapters_bench")
    models = required("pipeline.training.adapters.model")
    required("torch").set_num_threads(threads)
    console = Console()
    try:
        options = bench.BenchOptions(
            ranks=tuple(int(rank) for rank in ranks.split(",")),
            types=tuple(bench.AdapterType(kind) for kind in types.split(",")) if types else tuple(bench.AdapterType),
            adapters=adapters,
            images=images,
            train_steps=train_steps,
            train_batch=train_batch,
            learning_rate=learning_rate,
            sampler_steps=sampler_steps,
            guidance=guidance,
            seed=seed,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    try:
        texts, prompt_of = read_prompts(model, prompts)
        base = models.load_model(model, name or Path(model).name, size_px, device, texts)
        chosen, numbers = with_prompts(photographs, base.size_px, prompt_of)
        with Progress(console=console) as bar:
            task = bar.add_task("adapters")
            bench.generate(
                base,
                chosen,
                numbers,
                out=out,
                options=options,
                progress=lambda at, done, total: bar.update(task, completed=done, total=total, description=at),
            )
    except (models.ModelUnfit, PromptsUnfit, DatasetError, ManifestDamaged, OtherOptions) as error:
        raise typer.BadParameter(str(error)) from error
    console.print(f"{out}: bench of {base.name}; read it with `mediasieve evaluate {out}`", soft_wrap=True)
