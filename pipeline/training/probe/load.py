"""Images, their split and their cached features, as the experiments use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.training.dataset import Labelled, read_manifest
from pipeline.training.probe.crossfit import Channel, Images
from pipeline.training.probe.embed import load
from pipeline.training.probe.pair_store import PairFeatures
from pipeline.training.splits import SplitManifest, build


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

    def channel(self, backbone: str, views: Sequence[str], pairs: Path | None = None) -> Channel:
        """Mean features over each image's crops.

        Raises:
            FileNotFoundError: a view was not embedded; run `pipeline.training.probe.embed`.
        """
        found = {view: load(self.cache, backbone, view, self.rows).mean(1, dtype=np.float32) for view in views}
        return Channel(found, PairFeatures.load(pairs) if pairs else None)

    def joined(self, backbones: Sequence[str], views: Sequence[str]) -> Channel:
        """Features of several backbones side by side."""
        channels = [self.channel(name, views) for name in backbones]
        return Channel({view: np.concatenate([c.views[view] for c in channels], axis=1) for view in views})
