"""Learning curves as a picture. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.training.backbone import required
from pipeline.training.train_network import Curves

SMOOTHED_STEPS = 20


def draw_curves(curves: Curves, path: Path, title: str) -> None:
    """Training loss (mean of `SMOOTHED_STEPS` steps) with held-out loss, and held-out AUC, as PNG."""
    required("matplotlib").use("Agg")
    pyplot = required("matplotlib.pyplot")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    width = min(SMOOTHED_STEPS, len(curves.loss))
    smooth = np.convolve(curves.loss, np.ones(width) / width, mode="valid")
    left.plot(np.arange(width, len(curves.loss) + 1), smooth, label="training")
    left.plot(curves.steps, curves.held_out_loss, "o-", label="held out")
    left.set(xlabel="step", ylabel="log loss", title=title)
    left.legend()
    right.plot(curves.steps, curves.held_out_auc, "o-")
    right.axhline(0.5, linestyle=":", color="grey")
    right.set(xlabel="step", ylabel="AUC-ROC, held out", ylim=(0.0, 1.02))
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
