"""The adapter bench: images by adapter type and rank, paired with base-model images and with photographs.

Layout: `BASE/ADAPTER_TYPE/rNN/ADAPTER_ID/*.png` and one `manifest.jsonl`; base-model images lie under
`BASE/none/r00/base`, photographs under `photographs`. Needs the `torch` and `adapters` extras.

A rank sweep of the toy model proves this code, not a hypothesis about real generators.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.media.encode import Pixels
from pipeline.training.adapters.kinds import STACK_SCALES, AdapterType, Trained, activate, alpha_of, insert, strip
from pipeline.training.adapters.model import SAMPLER, LatentDiffusion
from pipeline.training.adapters.photographs import Photograph, by_source
from pipeline.training.adapters.quantise import four_bit
from pipeline.training.adapters.record import Record, agree_on, write_whole
from pipeline.training.adapters.training import train_adapter
from pipeline.training.backbone import required
from pipeline.training.tensors import read_tensors

__all__ = ["AdapterType", "BenchOptions", "Cell", "cells", "generate", "image_plan"]

RANKS = (4, 8, 16, 32, 64)
PHOTOGRAPHS = "photographs"
_WEIGHTS = "adapter.safetensors"
_EXTENDABLE = {"ranks", "types", "images", "batch"}
"""Options that a later run may change: they only add images, or hold them differently in memory."""


class BenchOptions(BaseModel):
    """What the bench holds, and how its adapters are trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ranks: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(RANKS, description="Ranks of the sweep.")
    types: tuple[AdapterType, ...] = Field(tuple(AdapterType), description="Adapter types of the sweep.")
    adapters: Annotated[int, Field(ge=1)] = Field(20, description="Adapters a type and rank.")
    images: Annotated[int, Field(ge=1)] = Field(50, description="Images an adapter: prompt and seed pairs.")
    photographs_each: Annotated[int, Field(ge=1)] = Field(20, description="Photographs that an adapter learns.")
    train_steps: Annotated[int, Field(ge=1)] = Field(500, description="Training steps an adapter.")
    train_batch: Annotated[int, Field(ge=1)] = Field(4, description="Images a training step.")
    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-4, description="Of the adapters' training.")
    sampler_steps: Annotated[int, Field(ge=1)] = Field(30, description="Steps of the sampler.")
    guidance: Annotated[float, Field(ge=1)] = Field(5.0, description="Classifier-free guidance; 1 is none.")
    batch: Annotated[int, Field(ge=1)] = Field(8, description="Images sampled at once.")
    seed: int = Field(0, description="Of everything drawn.")

    @model_validator(mode="after")
    def _pairs_need_two(self) -> BenchOptions:
        if self.adapters < 2 and any(kind.parts == 2 for kind in self.types):
            raise ValueError("adapters: stacked and switched types combine two; give at least 2, or leave them out")
        return self


@dataclass(frozen=True, slots=True)
class Cell:
    """One adapter of the sweep: the trained adapters that act in its images, by number."""

    kind: AdapterType
    rank: int
    number: int
    parts: tuple[int, ...]

    @property
    def adapter_id(self) -> str:
        """Unique within the bench together with the base; names its directory."""
        return f"{self.kind.value}-r{self.rank:02d}-" + "+".join(f"{part:02d}" for part in self.parts)

    def directory(self, base: str) -> str:
        """Relative to the bench."""
        return f"{base}/{self.kind.value}/r{self.rank:02d}/{self.adapter_id}"


Progress = Callable[[str, int, int], None]
"""Called with the adapter's id, adapters done, and adapters in all."""


def cells(options: BenchOptions) -> list[Cell]:
    """The sweep in order: types whose adapters others combine come first within each rank."""
    types = sorted(set(options.types), key=lambda kind: (kind.parts, list(AdapterType).index(kind)))
    found = []
    for rank in options.ranks:
        for kind in types:
            for number in range(options.adapters):
                parts = tuple((number + step) % options.adapters for step in range(kind.parts))
                found.append(Cell(kind, rank, number, parts))
    return found


def image_plan(options: BenchOptions, prompts: int) -> list[tuple[int, int]]:
    """(prompt, seed) of an adapter's images: every prompt in turn, each time with a new seed."""
    return [(number % prompts, options.seed * 1_000_003 + number) for number in range(options.images)]


def generate(
    model: LatentDiffusion,
    photographs: Sequence[Photograph],
    prompt_of: Sequence[int],
    *,
    out: Path,
    options: BenchOptions,
    progress: Progress,
) -> None:
    """Write the bench of one base model below `out`; what its manifest lists is skipped.

    Args:
        model: base model.
        photographs: what adapters learn, one source each in turn; also the paired real images.
        prompt_of: prompt number of each photograph.
        out: root of the layout; benches of several base models share it.
        options: the sweep.
        progress: told before each adapter.
    """
    _Bench(model, photographs, prompt_of, Record(out), options).run(progress)


class _Bench:
    """One base model's part of the layout."""

    def __init__(
        self,
        model: LatentDiffusion,
        photographs: Sequence[Photograph],
        prompt_of: Sequence[int],
        record: Record,
        options: BenchOptions,
    ) -> None:
        self.model, self.photographs, self.prompt_of = model, photographs, prompt_of
        self.record, self.options = record, options
        self.plan = image_plan(options, model.condition.count)

    def run(self, progress: Progress) -> None:
        agree_on(self.record.root / self.model.name / "options.json", self._facts())
        self._photographs()
        self._images(f"{self.model.name}/none/r00/base", {}, self.plan, None)
        sweep = cells(self.options)
        for done, cell in enumerate(sweep):
            progress(f"{self.model.name} {cell.adapter_id}", done, len(sweep))
            self._cell(cell)
        progress(self.model.name, len(sweep), len(sweep))

    def _facts(self) -> dict[str, Any]:
        """What decides each image, so that a run only goes on with its own kind."""
        keys = hashlib.sha256("\n".join(photo.key for photo in self.photographs).encode()).hexdigest()
        chosen = self.options.model_dump(mode="json", exclude=_EXTENDABLE)
        return {**chosen, "vae": self.model.vae_name, "size_px": self.model.size_px, "photographs": keys}

    def _photographs(self) -> None:
        """A photograph of the prompt for each image of the plan, as far as there are any."""
        rows = []
        for number in sorted({number for pair in self.plan if (number := self._photograph(pair)) is not None}):
            photo, path = self.photographs[number], self._photograph_path(number)
            if not self.record.has(path):
                facts = {
                    "path": path,
                    "label": "real",
                    "prompt_id": self.prompt_of[number],
                    "training_source": photo.source,
                }
                rows.append((photo.pixels, facts))
        self.record.add(rows)

    def _photograph(self, pair: tuple[int, int]) -> int | None:
        prompt, seed = pair
        fitting = [number for number, other in enumerate(self.prompt_of) if other == prompt]
        return fitting[seed % len(fitting)] if fitting else None

    def _photograph_path(self, number: int) -> str:
        key = hashlib.sha256(self.photographs[number].key.encode()).hexdigest()[:12]
        return f"{PHOTOGRAPHS}/{self.model.size_px}px-{key}.png"

    def _cell(self, cell: Cell) -> None:
        directory = cell.directory(self.model.name)
        plan = [pair for pair in self.plan if not self.record.has(_image_path(directory, pair))]
        if not plan:
            return
        trained = [self._trained(cell.kind.trained_as, cell.rank, part) for part in cell.parts]
        names = [f"part{position}" for position in range(len(trained))]
        scales = STACK_SCALES if cell.kind is AdapterType.STACKED else (1.0,) * len(trained)
        facts = {
            "adapter_type": cell.kind.value,
            "adapter_id": f"{self.model.name}/{cell.adapter_id}",
            "rank": cell.rank,
            "alpha": alpha_of(cell.rank),
            "scale": scales,
            "stack": tuple(f"{cell.kind.trained_as.value}-{part:02d}" for part in cell.parts),
            "training_source": " + ".join(self._subset(part)[0] for part in cell.parts),
        }
        denoiser = self.model.denoiser
        with four_bit(denoiser) if cell.kind is AdapterType.LORA_4BIT else nullcontext():
            try:
                for name, weights in zip(names, trained, strict=True):
                    insert(denoiser, weights, name)
                activate(denoiser, names, scales)
                switch = _switch(denoiser, names) if cell.kind is AdapterType.SWITCHED else None
                self._images(directory, facts, plan, switch)
            finally:
                strip(denoiser)

    def _images(self, directory: str, facts: dict[str, Any], plan: Sequence[tuple[int, int]], switch: Any) -> None:
        missing = [pair for pair in plan if not self.record.has(_image_path(directory, pair))]
        for pairs in _batches(missing, self.options.batch):
            prompts, seeds = [prompt for prompt, _ in pairs], [seed for _, seed in pairs]
            images = self.model.generate(prompts, seeds, self.options.sampler_steps, self.options.guidance, switch)
            self.record.add([self._row(directory, facts, pair, rgb) for pair, rgb in zip(pairs, images, strict=True)])

    def _row(
        self, directory: str, facts: dict[str, Any], pair: tuple[int, int], rgb: Pixels
    ) -> tuple[Pixels, dict[str, Any]]:
        number = self._photograph(pair)
        photograph = None if number is None else self._photograph_path(number)
        paired = _image_path(f"{self.model.name}/none/r00/base", pair) if facts else photograph
        return rgb, {
            **facts,
            "path": _image_path(directory, pair),
            "label": "ai",
            "base": self.model.name,
            "vae": self.model.vae_name,
            "sampler": f"{SAMPLER} {self.options.sampler_steps} steps, guidance {self.options.guidance:g}",
            "prompt_id": pair[0],
            "seed": pair[1],
            "paired_with": paired,
        }

    def _subset(self, number: int) -> tuple[str, list[int]]:
        """Source and photographs that adapter `number` learns: sources in turn, then other photographs of them."""
        sources = list(by_source(self.photographs).items())
        name, positions = sources[number % len(sources)]
        count = min(self.options.photographs_each, len(positions))
        start = (number // len(sources)) * count
        return name, [positions[(start + step) % len(positions)] for step in range(count)]

    def _trained(self, kind: AdapterType, rank: int, number: int) -> Trained:
        """The adapter from its file, or trained now and kept there."""
        path = self.record.root / Cell(kind, rank, number, (number,)).directory(self.model.name) / _WEIGHTS
        if path.is_file():
            return Trained(kind, rank, read_tensors(path))
        _, positions = self._subset(number)
        images = [self.photographs[position].pixels for position in positions]
        trained = train_adapter(
            self.model,
            self.model.encode(images),
            [self.prompt_of[position] for position in positions],
            kind,
            rank,
            steps=self.options.train_steps,
            batch=self.options.train_batch,
            learning_rate=self.options.learning_rate,
            seed=self.options.seed + number,
        )
        write_whole(path, required("safetensors.torch").save(dict(trained.weights)))
        return trained


def _switch(denoiser: Any, names: Sequence[str]) -> Callable[[int, int], None]:
    """Before-step call that lets the first adapter act in the first half of the steps and the second in the rest."""

    def before_step(index: int, steps: int) -> None:
        if index == 0 or index == steps // 2:
            activate(denoiser, [names[0] if index < steps // 2 else names[1]], (1.0,))

    return before_step


def _image_path(directory: str, pair: tuple[int, int]) -> str:
    return f"{directory}/p{pair[0]:03d}-s{pair[1]:06d}.png"


def _batches(pairs: Sequence[tuple[int, int]], size: int) -> Iterator[Sequence[tuple[int, int]]]:
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]
