"""Images for a capacity run: the demo's photographs and made images, without its broken files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workers.demo_media import make_demo_media


class MediaDraw:
    """Draws uris: photographs and made images by their shares, each kind in rounds that are shuffled anew.

    Rounds, because a handful of images decides how many references reach the later tiers: drawn independently, that
    number would vary by more than what a run is to show.
    """

    def __init__(self, directory: Path, seed: int, generated_share: float) -> None:
        """Writes the images below `directory`; raises as `make_demo_media`.

        `generated_share` is for measuring the later tiers, and no statement about anybody's traffic.
        """
        items = make_demo_media(directory)
        self._of = {kind: [i.path_or_uri for i in items if i.kind == kind] for kind in ("photograph", "generated")}
        self._left: dict[str, list[str]] = {kind: [] for kind in self._of}
        self._share = generated_share
        self._rng = np.random.default_rng(seed)
        sizes = {k: [Path(uri.removeprefix("file://")).stat().st_size for uri in uris] for k, uris in self._of.items()}
        means = {kind: float(np.mean(found)) for kind, found in sizes.items()}
        self.mean_bytes = generated_share * means["generated"] + (1.0 - generated_share) * means["photograph"]

    def next(self) -> str:
        """The next uri."""
        kind = "generated" if self._rng.random() < self._share else "photograph"
        if not self._left[kind]:
            self._left[kind] = [self._of[kind][i] for i in self._rng.permutation(len(self._of[kind]))]
        return self._left[kind].pop()
