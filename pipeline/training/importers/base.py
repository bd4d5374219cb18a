"""What an importer gives, and how a published head becomes one logit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.training.backbone import required
from pipeline.training.networks import Normalisation

torch: Any = required("torch")

_PREFIXES = ("model.", "backbone.", "net.", "vit.")


class ImportRefused(Exception):
    """A checkpoint that is not what the importer reads; the text names the file and the way out."""


@dataclass(frozen=True)
class Imported:
    """A network with one logit (higher means synthetic), the crops it was made for, and what to know about it.

    `note` says where serving on native-pixel crops differs from the publication's own preprocessing.
    """

    model: str
    net: Any
    normalisation: Normalisation
    size_px: int
    note: str


@dataclass(frozen=True)
class ImportOptions:
    """What a checkpoint does not say itself; each importer names the options it knows.

    `size_px`: side of a crop, for convolutional networks, which take any. `backbone`: directory of the frozen
    network under a head.
    """

    size_px: int | None = None
    backbone: Path | None = None


Importer = Callable[[Path, ImportOptions], Imported]


def without_prefix(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Names without the attribute that a wrapping module held the network in, if all share it."""
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            return {name.removeprefix(prefix): value for name, value in tensors.items()}
    return dict(tensors)


def outputs_of(tensors: Mapping[str, Any], name: str, path: Path) -> int:
    """1 or 2, from the head's weight.

    Raises:
        ImportRefused: no such head, or one of another width.
    """
    if name not in tensors:
        some = ", ".join(list(tensors)[:3])
        raise ImportRefused(f"{path}: no tensor {name}, found {some}, ...; is it a checkpoint of another architecture?")
    width = int(tensors[name].shape[0])
    if width not in {1, 2}:
        raise ImportRefused(
            f"{path}: {name} has {width} outputs; a detector has 1 (logit of synthetic) or 2 (real, synthetic):"
            " train a head first"
        )
    return width


def loaded(net: Any, tensors: Mapping[str, Any], path: Path) -> Any:
    """The network with exactly these tensors.

    Raises:
        ImportRefused: a tensor is missing, unknown or of another shape.
    """
    try:
        net.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        text = " ".join(str(error).split())[:400]
        raise ImportRefused(f"{path}: {text}; give a checkpoint of this architecture") from error
    return net.eval()


def one_logit(net: Any, outputs: int) -> Any:
    """The network itself, or for two outputs (real, synthetic) their difference: the logit of softmax."""
    return net if outputs == 1 else _Difference(net)


class _Difference(torch.nn.Module):  # type: ignore[misc]  # torch is optional, so untyped here
    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Any) -> Any:
        found = self.net(x)
        return found[:, 1:] - found[:, :1]
