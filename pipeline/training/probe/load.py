"""Images, their split and their cached features, as the experiments use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.training.dataset import Labelled, read_manifest
from pipeline.training.probe.crossfit import Channel, Images
from pipeline.training.probe.embed import load
from pipeline.training.probe.pair_store import PairFeatures
from pipeline.training.splits import FINAL, SplitManifest, build


@dataclass(frozen=True)
class Study:
    """Rows in order of digest, what the split says of them, and where their features are kept."""

    rows: Sequence[Labelled]
    images: Images
    cache: Path

    @classmethod
    def open(cls, data: Sequence[Path], split: Path, cache: Path) -> Study:
        """Read the manifests.

        Raises:
            ValueError: the data are not those of the split manifest.
        """
        rows = sorted((row for root in data for row in read_manifest(root)), key=lambda row: row.sha256)
        manifest = SplitManifest.model_validate_json(split.read_text(encoding="utf-8"))
        if build(rows) != manifest:
            raise ValueError(
                f"{split}: differs from {', '.join(map(str, data))}; run `pipeline.training.splits --check`"
            )
        return cls(rows, Images.of(manifest.rows, [row.packaged for row in rows]), cache)

    def without_fold(self, fold: int) -> Study:
        """The same with a fold, and every source that appears in it, moved to the final split."""
        images = self.images
        absent = np.isin(images.source, images.source[images.fold == fold])
        return replace(self, images=replace(images, fold=np.where(absent, FINAL, images.fold)))

    def channel(
        self, backbone: str, views: Sequence[str], pairs: Path | None = None, *, per_crop: bool = False
    ) -> Channel:
        """Mean features over each image's crops, or with `per_crop` those of every crop.

        Raises:
            FileNotFoundError: a view was not embedded; run `pipeline.training.probe.embed`.
        """
        found = {}
        for view in views:
            crops = load(self.cache, backbone, view, self.rows)
            found[view] = crops.astype(np.float32) if per_crop else crops.mean(1, dtype=np.float32)
        return Channel(found, PairFeatures.load(pairs) if pairs else None)

    def joined(self, backbones: Sequence[str], views: Sequence[str]) -> Channel:
        """Features of several backbones side by side."""
        channels = [self.channel(name, views) for name in backbones]
        return Channel({view: np.concatenate([c.views[view] for c in channels], axis=1) for view in views})
