"""The trainer on pairs that one glance tells apart: a checkerboard on the synthetic side."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import socket

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the [torch] extra")
pytest.importorskip("safetensors", reason="needs the [torch] extra")

from pipeline.training.pairs import Pair
from pipeline.training.train_network import (
    CHECKPOINT_FILE,
    WEIGHTS_FILE,
    Phase,
    ResumeRefused,
    TrainSettings,
    batch_of,
    train,
)

pytestmark = pytest.mark.torch

SETTINGS = TrainSettings(size_px=32, pairs_per_step=4, check_every_steps=10, held_out_pairs=12, learning_rate=3e-3)


class Checkerboards:
    """`real` is noise; `synthetic` is the same noise with a faint checkerboard."""

    def __init__(self, seed=0):
        self.seed = seed

    def pair(self, number):
        rng = np.random.default_rng([self.seed, number])
        real = rng.integers(40, 200, (32, 32, 3), np.uint8)
        board = (np.indices((32, 32)).sum(0) % 2 * 30).astype(np.uint8)[..., None]
        return Pair(real, real + board, "board", "noise", real if number % 2 else None)


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


def test_it_learns_and_holds_out(tmp_path):
    trained = train([Phase("mixed", Checkerboards(), 30)], Checkerboards(1), SETTINGS, tmp_path)
    assert trained.curves.steps == [10, 20, 30]
    assert trained.curves.held_out_auc[-1] > 0.95
    assert np.mean(trained.curves.loss[-5:]) < np.mean(trained.curves.loss[:5]) / 2
    assert trained.held_out_logits.shape == trained.held_out_synthetic.shape


def test_a_run_that_goes_on_equals_one_that_never_stopped(tmp_path):
    phases = [Phase("a", Checkerboards(), 6), Phase("b", Checkerboards(2), 6)]
    whole = train(phases, Checkerboards(1), SETTINGS.model_copy(update={"check_every_steps": 4}), tmp_path / "whole")

    class Stops(Checkerboards):
        def pair(self, number):
            if number >= 4 * 9:
                raise InterruptedError
            return super().pair(number)

    settings = SETTINGS.model_copy(update={"check_every_steps": 4})
    with pytest.raises(InterruptedError):
        train([phases[0], Phase("b", Stops(2), 6)], Checkerboards(1), settings, tmp_path / "parts")
    parts = train(phases, Checkerboards(1), settings, tmp_path / "parts")
    assert parts.curves == whole.curves
    assert (tmp_path / "parts" / WEIGHTS_FILE).read_bytes() == (tmp_path / "whole" / WEIGHTS_FILE).read_bytes()


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    phases = [Phase("mixed", Checkerboards(), 2)]
    train(phases, Checkerboards(1), SETTINGS, tmp_path)
    with pytest.raises(ResumeRefused, match=f"{CHECKPOINT_FILE}: made with other settings"):
        train(phases, Checkerboards(1), SETTINGS.model_copy(update={"seed": 1}), tmp_path)


def test_both_sides_of_a_pair_weigh_alike():
    pairs = [Checkerboards().pair(0), Checkerboards().pair(1)]
    crops, labels, weights = batch_of(pairs)
    assert crops.shape == (5, 32, 32, 3)
    assert weights[labels == 1].sum() == pytest.approx(0.5)
    assert weights[labels == 0].tolist() == pytest.approx([0.25, 0.125, 0.125])


def one_of_two(rank, port, out):
    import torch

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    found = train([Phase("mixed", Checkerboards(), 3)], Checkerboards(1), SETTINGS, out / str(rank))
    torch.save({name: value.detach() for name, value in found.net.named_parameters()}, out / f"net{rank}")


def test_two_processes_keep_one_set_of_weights_and_the_first_writes_it(tmp_path):
    import torch

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")  # torch is imported here already, and that takes the longest
    runs = [context.Process(target=one_of_two, args=(rank, port, tmp_path)) for rank in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert [run.exitcode for run in runs] == [0, 0]
    first, second = (torch.load(tmp_path / f"net{rank}", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not (tmp_path / "1" / WEIGHTS_FILE).exists()
    assert len(json.loads((tmp_path / "0" / "curves.json").read_text())["loss"]) == 3


def test_pairs_are_frozen():
    pair = Checkerboards().pair(0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        pair.family = "x"
