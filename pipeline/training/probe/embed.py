"""Frozen backbone features of views, computed once and kept.

python -m pipeline.training.probe.embed DATA [DATA ...] --cache DIR --backbone NAME --views NAME [NAME ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from rich.progress import track

from pipeline.detection.classifier.preprocess import Pixels
from pipeline.detection.spectral import features as spectral
from pipeline.media.decode import bt601_luma
from pipeline.training.backbone import load_backbone, required
from pipeline.training.dataset import Labelled, read_manifest, read_pixels
from pipeline.training.probe.views import VIEWS

Half = npt.NDArray[np.float16]

HARD = "hard"
SPECTRAL = "spectral"
"""Stands for a backbone: the features of the spectral tier, float32, one vector a crop."""


class Embedder:
    """Pooled features of the whole network, then mean and standard deviation of every block's output.

    float16 (N, D). The network runs in ONNX Runtime, several times as fast here as in torch.
    """

    def __init__(self, backbone: str, cache: Path) -> None:
        """Export the backbone into `cache`, unless it lies there."""
        path = cache / f"{backbone}.onnx"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            export_moments(load_backbone(backbone), path)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, crops: Pixels) -> Half:
        """Features of uint8 (N, S, S, 3)."""
        return np.concatenate([self._session.run(None, {"crops": c[None]})[0] for c in crops]).astype(np.float16)


class SpectralEmbedder:
    """The spectral tier's features of crops, float32 (N, F), in the order of `features.NAMES`."""

    def __call__(self, crops: Pixels) -> npt.NDArray[np.float32]:
        """Features of uint8 (N, S, S, 3)."""
        return np.stack([list(spectral.measure(bt601_luma(crop), crop).values.values()) for crop in crops]).astype(
            np.float32
        )


def embedder_of(backbone: str, cache: Path) -> Embedder | SpectralEmbedder:
    """By name: `spectral`, or one of `BACKBONES`."""
    return SpectralEmbedder() if backbone == SPECTRAL else Embedder(backbone, cache)


def moments_module(net: Any) -> Any:
    """A torch module: normalised pixels (N, 3, S, S) to float32 (N, D), as `Embedder` gives them."""
    torch = required("torch")

    class Moments(torch.nn.Module):  # type: ignore[misc, name-defined]  # torch is optional, so untyped here
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, pixels: Any) -> Any:
            x = net.bn1(net.conv_stem(pixels))
            taps = [x]
            for block in net.blocks:
                x = block(x)
                taps.append(x)
            pooled = net.global_pool(net.bn2(net.conv_head(x)))
            means = [tap.mean((2, 3)) for tap in taps]
            spreads = [
                ((tap - mean[:, :, None, None]).square().mean((2, 3)) + 1e-8).sqrt()
                for tap, mean in zip(taps, means, strict=True)
            ]
            return torch.cat([pooled, *means, *spreads], 1)

    return Moments().eval()


def export_moments(net: Any, path: Path) -> None:
    """Write `moments_module` as ONNX, uint8 crops (N, S, S, 3) in."""
    torch = required("torch")
    moments = moments_module(net)

    class CropsToMoments(torch.nn.Module):  # type: ignore[misc, name-defined]  # as above
        def forward(self, crops: Any) -> Any:
            return moments((crops.permute(0, 3, 1, 2).float() - 127.5) / 127.5)

    torch.onnx.export(
        CropsToMoments().eval(),
        (torch.zeros(2, 256, 256, 3, dtype=torch.uint8),),
        str(path),
        input_names=["crops"],
        output_names=["features"],
        dynamic_axes={"crops": {0: "n", 1: "side", 2: "side"}, "features": {0: "n"}},
        opset_version=17,
        dynamo=False,  # the newer exporter needs onnxscript and gives the same graph for this network
    )


def cache_path(cache: Path, backbone: str, view: str, sha256: str) -> Path:
    """Where the features (9, D) of one view of one image lie."""
    return cache / backbone / view / f"{sha256}.npy"


def fill(cache: Path, backbone: str, views: Sequence[str], rows: Sequence[Labelled]) -> None:
    """Compute what is missing; may be stopped and started again."""
    embedder: Embedder | SpectralEmbedder | None = None
    for row in track(rows, f"{backbone} {' '.join(views)}"):
        missing = [v for v in views if not cache_path(cache, backbone, v, row.sha256).exists()]
        if not missing:
            continue
        embedder = embedder or embedder_of(backbone, cache)
        rgb = read_pixels(row)
        for view in missing:
            path = cache_path(cache, backbone, view, row.sha256)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial.npy")
            np.save(partial, embedder(VIEWS[view](rgb, row.sha256)))
            partial.rename(path)


def load(cache: Path, backbone: str, view: str, rows: Sequence[Labelled]) -> Half:
    """Features of all rows, float16 (M, 9, D).

    The view `hard` is of photographs alone: NaN stands for a generated image.

    Raises:
        FileNotFoundError: not computed yet; run this module first.
    """
    paths = [cache_path(cache, backbone, view, row.sha256) for row in rows]
    if view != HARD:
        return np.stack([np.load(path) for path in paths])
    found = [None if row.synthetic else np.load(path) for row, path in zip(rows, paths, strict=True)]
    shape = next(features.shape for features in found if features is not None)
    return np.stack([np.full(shape, np.nan, np.float16) if features is None else features for features in found])


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.probe.embed")
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--views", nargs="+", choices=sorted(VIEWS), required=True)
    parser.add_argument("--photographs-only", action="store_true", help="leave generated images out")
    options = parser.parse_args(arguments)
    rows = [row for data in options.data for row in read_manifest(data)]
    rows = [row for row in rows if not (row.synthetic and options.photographs_only)]
    fill(options.cache, options.backbone, options.views, rows)


if __name__ == "__main__":
    main()
