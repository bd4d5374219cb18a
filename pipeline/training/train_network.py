"""Train a network end to end on pairs: one CPU, one GPU, or several processes under torchrun or accelerate.

    mediasieve bundle train DATA --out DIR ...
    torchrun --nproc-per-node 4 --no-python mediasieve bundle train DATA --out DIR --device cuda ...

A step's crops and its random numbers depend on the seed, the step and the process alone, so a run that was stopped
and goes on gives the weights of one that was not. Needs the `torch` extra.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import Progress

from pipeline.detection.calibration import Bools, Floats
from pipeline.evaluation.metrics import roc_auc
from pipeline.media.encode import Pixels
from pipeline.training.backbone import required
from pipeline.training.networks import Architecture, CropsToLogits, Normalisation, build
from pipeline.training.pairs import Pair, PairSource
from pipeline.training.processes import Processes
from pipeline.training.tensors import write_with_text

torch: Any = required("torch")
nn: Any = torch.nn

CHECKPOINT_FILE = "checkpoint.pt"
WEIGHTS_FILE = "weights.safetensors"
CURVES_FILE = "curves.json"
_WARM_UP_SHARE = 0.05


class TrainSettings(BaseModel):
    """How a network is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Annotated[Architecture, Field(description="`small` for a CPU, the others for a GPU")] = "small"
    pretrained: Annotated[bool, Field(description="start from timm's published weights")] = False
    size_px: Annotated[int, Field(ge=32, le=1024, description="side of a crop")] = 192
    pairs_per_step: Annotated[int, Field(ge=1, le=4096, description="in each process")] = 8
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0, description="peak, after the warm-up")] = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 1e-2
    seed: Annotated[int, Field(ge=0, description="decides weights, crops and dropout")] = 0
    device: Annotated[str, Field(pattern=r"^(cpu|cuda)$", description="cuda: one GPU a process")] = "cpu"
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"], Field(description="autocast; float16 scales the loss, CUDA only")
    ] = "float32"
    loader_processes: Annotated[int, Field(ge=0, le=64, description="that make pairs; 0: the trainer itself")] = 0
    check_every_steps: Annotated[int, Field(ge=1, description="between checkpoints and looks at held-out pairs")] = 100
    held_out_pairs: Annotated[int, Field(ge=4, le=100_000, description="looked at each time")] = 64


@dataclass(frozen=True)
class Phase:
    """So many steps of one source of pairs: a stage of the curriculum."""

    name: str
    source: PairSource
    steps: int


@dataclass
class Curves:
    """What was measured on the way; `steps` belong to the held-out values."""

    loss: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    held_out_loss: list[float] = field(default_factory=list)
    held_out_auc: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Trained:
    """The network, its normalisation, the curves, and what it says of the held-out crops.

    `is_first`: whether this is the process that writes files.
    """

    net: Any
    normalisation: Normalisation
    curves: Curves
    held_out_logits: Floats
    held_out_synthetic: Bools
    is_first: bool


class ResumeRefused(Exception):
    """The checkpoint is of another run; the text says what differs."""


class _Run:
    """Everything that a step changes, and its checkpoint."""

    def __init__(self, settings: TrainSettings, total_steps: int, directory: Path, processes: Processes) -> None:
        self.settings = settings
        self.directory = directory
        self.processes = processes
        self.total_steps = total_steps
        self.step = 0
        self.curves = Curves()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.net, self.normalisation = build(
                settings.architecture, settings.size_px, pretrained=settings.pretrained
            )
        self.device = processes.device(settings.device)
        whole = CropsToLogits(self.net, self.normalisation).to(self.device)
        self.module = processes.wrapped(whole)
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self._rate)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "float16")

    def _rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to zero."""
        warm_up = max(1, round(_WARM_UP_SHARE * self.total_steps))
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1.0 + float(np.cos(np.pi * (step - warm_up) / max(1, self.total_steps - warm_up))))

    def learn(self, pairs: Sequence[Pair]) -> None:
        crops, labels, weights = batch_of(pairs)
        torch.manual_seed(hash((self.settings.seed, self.step, self.processes.rank)) % 2**63)
        self.module.train()
        with self._autocast():
            logits = self.module(torch.from_numpy(crops).to(self.device)).float()
        wanted, weight = (torch.from_numpy(v).to(self.device) for v in (labels, weights))
        loss = nn.functional.binary_cross_entropy_with_logits(logits, wanted, weight=weight, reduction="sum")
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.schedule.step()
        self.step += 1
        self.curves.loss.append(self.processes.mean(loss.detach()))

    def look(self, crops: Pixels, labels: Bools) -> Floats:
        """Logits of the held-out crops; their loss and AUC go into the curves."""
        self.module.eval()
        parts = np.array_split(crops, max(1, len(crops) // (2 * self.settings.pairs_per_step)))
        with torch.inference_mode(), self._autocast():
            whole = self.processes.unwrapped(self.module)
            found = [whole(torch.from_numpy(part).to(self.device)).float().cpu().numpy() for part in parts]
        logits = np.concatenate(found).astype(np.float64)
        sign = np.where(labels, -1.0, 1.0)
        self.curves.steps.append(self.step)
        self.curves.held_out_loss.append(float(np.logaddexp(0.0, sign * logits).mean()))
        self.curves.held_out_auc.append(roc_auc(logits[~labels], logits[labels]))
        return logits

    def save(self) -> None:
        """Replace the checkpoint in one move."""
        state = {
            "settings": self._identity(),
            "step": self.step,
            "curves": json.dumps(vars(self.curves)),
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": {"last_epoch": self.schedule.last_epoch},
            "scaler": self.scaler.state_dict(),
        }
        unfinished = self.directory / f"{CHECKPOINT_FILE}.unfinished"
        torch.save(state, unfinished)
        os.replace(unfinished, self.directory / CHECKPOINT_FILE)
        (self.directory / CURVES_FILE).write_text(json.dumps(vars(self.curves)) + "\n", encoding="utf-8")

    def resume(self) -> None:
        """Go on from the directory's checkpoint, if there is one."""
        path = self.directory / CHECKPOINT_FILE
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["settings"] != self._identity():
            raise ResumeRefused(
                f"{path}: made with other settings: {state['settings']}; remove it or use another --out"
            )
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.schedule.last_epoch = state["schedule"]["last_epoch"]
        self.step = int(state["step"])
        self.curves = Curves(**json.loads(state["curves"]))

    def _identity(self) -> str:
        """What must not change between the parts of a run."""
        changeable = {"device", "precision", "loader_processes", "check_every_steps", "held_out_pairs"}
        own = self.settings.model_dump_json(exclude=changeable)
        return f"{own} steps={self.total_steps} processes={self.processes.count}"

    def _autocast(self) -> Any:
        if self.settings.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.settings.precision))


def train(phases: Sequence[Phase], held_out: PairSource, settings: TrainSettings, directory: Path) -> Trained:
    """Train through all phases, or go on where the directory's checkpoint stopped.

    Args:
        phases: the curriculum; one for none.
        held_out: pairs of photographs, and best of decoder families, that no phase holds.
        settings: see `TrainSettings`.
        directory: checkpoint, weights and curves; made if absent.

    Raises:
        ResumeRefused: the checkpoint there is of other settings.
        ValueError: no step to train.
    """
    total = sum(phase.steps for phase in phases)
    if total < 1:
        raise ValueError("phases: not one step to train")
    directory.mkdir(parents=True, exist_ok=True)
    with Processes.joined(settings.device) as processes:
        run = _Run(settings, total, directory, processes)
        run.resume()
        crops, labels = _held_out_crops(held_out, settings.held_out_pairs)
        logits: Floats | None = None
        with Progress(disable=not processes.is_first) as progress:
            bar = progress.add_task(settings.architecture, total=total, completed=run.step)
            for pairs in _batches(phases, settings, run.step, processes):
                run.learn(pairs)
                progress.update(bar, advance=1, description=f"{settings.architecture} loss {run.curves.loss[-1]:.3f}")
                if run.step % settings.check_every_steps == 0 or run.step == total:
                    logits = run.look(crops, labels)
                    if processes.is_first:
                        run.save()
        if logits is None:  # the checkpoint was of the last step
            logits = run.look(crops, labels)
        if processes.is_first:
            write_with_text(directory / WEIGHTS_FILE, run.net.state_dict(), {"settings": settings.model_dump_json()})
        return Trained(run.net.eval().cpu(), run.normalisation, run.curves, logits, labels, processes.is_first)


def batch_of(pairs: Sequence[Pair]) -> tuple[Pixels, np.ndarray, np.ndarray]:
    """Crops uint8 (N, S, S, 3), labels and weights float32 (N,).

    Each pair weighs 1 / number of pairs, half of it its synthetic side; a matched negative shares the real half.
    """
    crops, labels, weights = [], [], []
    for pair in pairs:
        real = [pair.real] if pair.matched is None else [pair.real, pair.matched]
        crops += [*real, pair.synthetic]
        labels += [0.0] * len(real) + [1.0]
        weights += [0.5 / len(real) / len(pairs)] * len(real) + [0.5 / len(pairs)]
    return np.stack(crops), np.array(labels, np.float32), np.array(weights, np.float32)


def _held_out_crops(source: PairSource, count: int) -> tuple[Pixels, Bools]:
    crops, labels, _ = batch_of([source.pair(number) for number in range(count)])
    return crops, labels > 0.5


def _batches(
    phases: Sequence[Phase], settings: TrainSettings, start: int, processes: Processes
) -> Iterator[Sequence[Pair]]:
    """This process's pairs of each step from `start` on."""
    first = 0
    for phase in phases:
        steps = range(max(start, first), first + phase.steps)
        first += phase.steps
        numbers = [
            [
                (step * processes.count + processes.rank) * settings.pairs_per_step + i
                for i in range(settings.pairs_per_step)
            ]
            for step in steps
        ]
        if numbers:
            yield from torch.utils.data.DataLoader(
                _ByNumber(phase.source),
                batch_sampler=numbers,
                num_workers=settings.loader_processes,
                collate_fn=list,
            )


class _ByNumber(torch.utils.data.Dataset):  # type: ignore[misc]  # torch is optional, so untyped here
    def __init__(self, source: PairSource) -> None:
        self._source = source

    def __getitem__(self, number: int) -> Pair:
        return self._source.pair(number)
