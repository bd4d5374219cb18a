"""Checkpoints as tensors and nothing else, and images through a torch network. Needs the `torch` extra."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.media.encode import Pixels
from pipeline.training.backbone import required

_NESTED = ("state_dict", "model", "model_state_dict", "params_ema", "params", "net")
"""Keys that published checkpoints put the tensors under."""


def read_tensors(path: Path) -> dict[str, Any]:
    """Tensors of a `.safetensors` file, or of a pickled `.pth`/`.pt`/`.ckpt`/`.bin` read with weights_only.

    Half-precision tensors become float32. Wrappers (`state_dict`, `model`, `params_ema`, ...) and the prefix
    `module.` of data-parallel training are taken off.

    Raises:
        ValueError: absent, of another format, or it holds more than tensors.
    """
    if path.suffix == ".safetensors":
        return _widened(read_with_text(path)[0])
    torch = required("torch")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"{path}: {error}; give a checkpoint file") from error
    except Exception as error:  # torch raises pickle, zip and runtime errors alike for a file that is no tensor file
        reason = type(error).__name__  # its text would advise to switch the safeguard off
        raise ValueError(f"{path}: damaged, or more than tensors ({reason}); convert it to safetensors") from error
    for key in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    tensors = dict(found) if isinstance(found, Mapping) else {}
    others = [name for name, value in tensors.items() if not torch.is_tensor(value)]
    if not tensors or others:
        raise ValueError(f"{path}: expected a mapping of tensors, found {others[:3] or type(found).__name__}")
    return _widened({str(name).removeprefix("module."): value for name, value in tensors.items()})


def read_with_text(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors and the header's text fields of a safetensors file.

    Raises:
        ValueError: absent or damaged.
    """
    safetensors = required("safetensors")
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118 - no mapping
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path}: {error}; give a safetensors file") from error


def write_with_text(path: Path, tensors: Mapping[str, Any], text: Mapping[str, str]) -> None:
    """Write a safetensors file."""
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    required("safetensors.torch").save_file(contiguous, str(path), dict(text))


def through(net: Any, rgb: Pixels, multiple: int) -> Pixels:
    """An image through a network that keeps the size, such as encoder + decoder.

    Args:
        net: float (1, 3, H, W) within 0..1 to the same.
        rgb: uint8 (H, W, 3), any size.
        multiple: sides are reflected up to a multiple of it, and the result is cut back.
    """
    height, width = rgb.shape[:2]
    return np.ascontiguousarray(run_network(net, reflected_to(rgb, multiple))[:height, :width])


def reflected_to(rgb: Pixels, multiple: int) -> Pixels:
    """Reflected below and right, up to a multiple of so many pixels a side."""
    pads = ((0, -rgb.shape[0] % multiple), (0, -rgb.shape[1] % multiple), (0, 0))
    return np.pad(rgb, pads, mode="symmetric") if any(after for _, after in pads) else rgb


def run_network(net: Any, rgb: Pixels) -> Pixels:
    """One image, uint8 (H, W, 3), through a network of pixels within 0..1, on the device of its parameters."""
    torch = required("torch")
    device = next(iter(net.parameters())).device
    with torch.inference_mode():
        own = np.require(rgb, requirements=("C", "W"))  # torch takes no read-only arrays, as Pillow gives them
        pixels = torch.from_numpy(own).to(device).permute(2, 0, 1)[None].float().div(255.0)
        found: Pixels = net(pixels)[0].clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return found


def _widened(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
