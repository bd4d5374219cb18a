"""Vision transformers: CLIP under a linear head (UnivFD form), and Community-Forensics-style ViT-S/16."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.training.backbone import required
from pipeline.training.importers.base import (
    Imported,
    ImportOptions,
    ImportRefused,
    loaded,
    one_logit,
    outputs_of,
    without_prefix,
)
from pipeline.training.networks import CLIP, Normalisation
from pipeline.training.tensors import read_tensors

torch: Any = required("torch")

VIT_HEADS = {192: 3, 384: 6, 768: 12}
"""Embedding width -> attention heads, of timm's tiny, small and base transformers: tensors do not tell heads."""


def univfd(path: Path, options: ImportOptions) -> Imported:
    """A linear head (`fc.weight`, `fc.bias`, or `weight`, `bias`) on CLIP's projected image embedding.

    `options.backbone` is a directory of transformers' `CLIPVisionModelWithProjection` (`config.json` and
    `model.safetensors`; ViT-L/14 has 768 dimensions). Crops have the backbone's own size, 224 px for ViT-L/14: the
    publication crops 224 px and does not resize.

    Raises:
        ImportRefused: no backbone, or a head that does not fit it.
    """
    if options.backbone is None:
        raise ImportRefused(f"{path}: a head alone; give --backbone DIR with the CLIP vision tower (transformers)")
    weight, bias = _head(_tensors(path), path)
    transformers = required("transformers")
    try:
        tower = transformers.CLIPVisionModelWithProjection.from_pretrained(
            str(options.backbone), local_files_only=True, use_safetensors=True, attn_implementation="eager"
        )
    except (OSError, ValueError) as error:
        raise ImportRefused(f"{options.backbone}: {error}; save_pretrained a CLIPVisionModelWithProjection") from error
    if weight.shape[1] != tower.config.projection_dim:
        raise ImportRefused(
            f"{path}: the head takes {weight.shape[1]} numbers, the backbone gives {tower.config.projection_dim}"
        )
    size_px = int(tower.config.image_size)
    if options.size_px not in {None, size_px}:
        raise ImportRefused(f"size_px {options.size_px}: this backbone takes crops of {size_px} px and no others")
    note = f"Serves native-pixel crops of {size_px} px; the publication takes one centre crop and does not resize."
    return Imported("clip-linear-univfd", _ClipWithHead(tower, weight, bias).eval(), CLIP, size_px, note)


def vit_s16(path: Path, options: ImportOptions) -> Imported:
    """A timm ViT (ViT-S/16 at 384 px as Community Forensics trains it) with one logit; prefix `vit.` allowed.

    Width, depth, patch and input size are taken from the tensors' shapes.

    Raises:
        ImportRefused: another architecture, or a head of neither 1 nor 2 outputs.
    """
    tensors = without_prefix(_tensors(path))
    outputs = outputs_of(tensors, "head.weight", path)
    width = int(tensors["head.weight"].shape[1])
    if width not in VIT_HEADS or not {"pos_embed", "patch_embed.proj.weight"} <= tensors.keys():
        raise ImportRefused(f"{path}: no ViT of width {', '.join(map(str, VIT_HEADS))} with patch and position tensors")
    patch = int(tensors["patch_embed.proj.weight"].shape[-1])
    size_px = patch * math.isqrt(int(tensors["pos_embed"].shape[1]) - 1)
    if options.size_px not in {None, size_px}:
        raise ImportRefused(f"size_px {options.size_px}: this checkpoint takes crops of {size_px} px and no others")
    depth = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
    vit = required("timm.models.vision_transformer").VisionTransformer(
        img_size=size_px,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=VIT_HEADS[width],
        num_classes=outputs,
    )
    note = (
        f"Serves native-pixel crops of {size_px} px; the publication resizes the shorter side to 440 px and takes the"
        f" centre {size_px} px, so scores of large images differ from its own."
    )
    net = one_logit(loaded(vit, tensors, path), outputs)
    return Imported(f"vit-w{width}-p{patch}-{size_px}", net, Normalisation(), size_px, note)


def _tensors(path: Path) -> dict[str, Any]:
    try:
        return read_tensors(path)
    except ValueError as error:
        raise ImportRefused(str(error)) from error


def _head(tensors: Mapping[str, Any], path: Path) -> tuple[Any, Any]:
    for prefix in ("fc.", ""):
        weight, bias = tensors.get(f"{prefix}weight"), tensors.get(f"{prefix}bias")
        if weight is not None and bias is not None:
            if weight.ndim != 2 or weight.shape[0] != 1 or bias.shape != (1,):
                raise ImportRefused(f"{path}: {prefix}weight {tuple(weight.shape)}: expected (1, D) and a bias (1,)")
            return weight, bias
    raise ImportRefused(f"{path}: neither fc.weight and fc.bias nor weight and bias; give the linear head's checkpoint")


class _ClipWithHead(torch.nn.Module):  # type: ignore[misc]  # torch is optional, so untyped here
    def __init__(self, tower: Any, weight: Any, bias: Any) -> None:
        super().__init__()
        self.tower = tower
        self.fc = torch.nn.Linear(weight.shape[1], 1)
        with torch.no_grad():
            self.fc.weight.copy_(weight)
            self.fc.bias.copy_(bias)

    def forward(self, x: Any) -> Any:
        return self.fc(self.tower(pixel_values=x).image_embeds)
