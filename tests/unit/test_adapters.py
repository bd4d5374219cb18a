"""The adapter bench on a model of a few thousand weights: every type goes in, acts, comes out, and is listed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
pytest.importorskip("diffusers", reason="needs the [adapters] extra")
pytest.importorskip("peft", reason="needs the [adapters] extra")

from pipeline.evaluation.layouts import open_dataset  # noqa: E402 - only where torch is installed
from pipeline.training import adapters_bench  # noqa: E402
from pipeline.training.adapters import toy  # noqa: E402
from pipeline.training.adapters.kinds import AdapterType, activate, inject, insert, strip, weights_of  # noqa: E402
from pipeline.training.adapters.model import LatentDiffusion, TextPrompts, load_model  # noqa: E402
from pipeline.training.adapters.photographs import Photograph  # noqa: E402
from pipeline.training.adapters.quantise import BLOCK, NF4_LEVELS, four_bit, nf4  # noqa: E402
from pipeline.training.adapters.record import BenchRow, ManifestDamaged, OtherOptions, Record  # noqa: E402
from pipeline.training.adapters.toy import ToyOptions  # noqa: E402
from pipeline.training.adapters.training import train_adapter  # noqa: E402

SIZE_PX = 32
OPTIONS = adapters_bench.BenchOptions(
    ranks=(2, 4), adapters=2, images=2, photographs_each=2, train_steps=2, train_batch=2, learning_rate=1e-2,
    sampler_steps=2, guidance=1.0, batch=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def photographs() -> list[Photograph]:
    random = np.random.default_rng(0)
    return [
        Photograph(f"{number}.jpg", "ab"[number % 2], random.integers(0, 256, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8))
        for number in range(8)
    ]


@pytest.fixture(scope="module")
def toy_directory(photographs: list[Photograph], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("toy") / "toy"
    options = ToyOptions(size_px=SIZE_PX, prompts=2, vae_steps=2, vae_channels=8, vae_halvings=2, steps=2, batch=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy, "UNET_CHANNELS", (8, 16, 16))
        toy.train_toy(photographs, directory, options, lambda *_: None)
    return directory


@pytest.fixture
def model(toy_directory: Path) -> LatentDiffusion:
    return load_model(str(toy_directory), "toy", SIZE_PX, "cpu")


def states(model: LatentDiffusion) -> dict[str, object]:
    return {name: value.clone() for name, value in model.denoiser.state_dict().items()}


def unchanged(before: dict[str, object], model: LatentDiffusion) -> bool:
    after = model.denoiser.state_dict()
    return set(before) == set(after) and all(torch.equal(before[name], after[name]) for name in before)


def test_equal_seeds_give_equal_images_and_others_do_not(model: LatentDiffusion) -> None:
    first, again, other = model.generate([0, 0, 0], [5, 5, 6], 2, 1.0)
    assert first.shape == (SIZE_PX, SIZE_PX, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("kind", [AdapterType.LORA, AdapterType.DORA, AdapterType.LOKR, AdapterType.LORA_4BIT])
def test_a_trained_adapter_acts_and_leaves_the_base_as_it_was(model: LatentDiffusion, kind: AdapterType) -> None:
    before = states(model)
    plain = model.generate([0], [1], 2, 1.0)[0]
    latents = torch.randn(3, 8, SIZE_PX // 4, SIZE_PX // 4, generator=torch.Generator().manual_seed(0))
    trained = train_adapter(model, latents, [0, 1, 0], kind, 4, steps=3, batch=2, learning_rate=0.05, seed=0)
    assert unchanged(before, model)

    insert(model.denoiser, trained, "a")
    activate(model.denoiser, ["a"], [1.0])
    adapted = model.generate([0], [1], 2, 1.0)[0]
    activate(model.denoiser, ["a"], [0.0])
    silent = model.generate([0], [1], 2, 1.0)[0]
    strip(model.denoiser)

    assert not np.array_equal(plain, adapted)
    if kind is not AdapterType.DORA:  # a silent DoRA still normalises, within rounding
        assert np.array_equal(plain, silent)
    assert unchanged(before, model)


def test_an_adapter_of_another_rank_does_not_go_in_silently(model: LatentDiffusion) -> None:
    inject(model.denoiser, AdapterType.LORA, 4, "a")
    weights = weights_of(model.denoiser, "a")
    strip(model.denoiser)
    name = next(iter(weights))
    with pytest.raises(ValueError, match="do not fit"):
        insert(model.denoiser, _trained({key: value for key, value in weights.items() if key != name}), "b")
    strip(model.denoiser)


def _trained(weights: dict[str, object]) -> adapters_bench.Trained:
    return adapters_bench.Trained(AdapterType.LORA, 4, weights)


def test_nf4_keeps_its_levels_and_at_most_half_a_gap_of_error() -> None:
    levels = torch.tensor(NF4_LEVELS)
    assert torch.equal(nf4(levels * 3.0), levels * 3.0)
    weights = torch.randn(7, 33, generator=torch.Generator().manual_seed(0))
    rounded = nf4(weights)
    gap = max(high - low for low, high in pairwise(NF4_LEVELS))
    assert rounded.shape == weights.shape
    assert float((rounded - weights).abs().max()) <= gap / 2 * float(weights.abs().max()) + 1e-6
    assert len(torch.unique(rounded.flatten()[:BLOCK])) <= len(NF4_LEVELS)
    assert torch.equal(nf4(torch.zeros(5)), torch.zeros(5))


def test_four_bit_weights_come_back(model: LatentDiffusion) -> None:
    before = states(model)
    with four_bit(model.denoiser):
        assert not unchanged(before, model)
    assert unchanged(before, model)


def test_the_sweep_holds_every_type_rank_and_adapter() -> None:
    sweep = adapters_bench.cells(OPTIONS)
    assert len(sweep) == len(AdapterType) * 2 * 2
    assert len({cell.adapter_id for cell in sweep}) == len(sweep)
    with pytest.raises(ValueError, match="at least 2"):
        adapters_bench.BenchOptions(adapters=1)


def test_the_bench_reads_as_a_dataset_and_goes_on_where_it_was_cut(
    model: LatentDiffusion, photographs: list[Photograph], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [number % 2 for number in range(len(photographs))]

    def run() -> int:
        drawn = 0
        generate = LatentDiffusion.generate

        def counted(self: LatentDiffusion, prompts: list[int], *rest: object) -> object:
            nonlocal drawn
            drawn += len(prompts)
            return generate(self, prompts, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(LatentDiffusion, "generate", counted)
            adapters_bench.generate(
                model, photographs, numbers, out=tmp_path, options=OPTIONS, progress=lambda *_: None
            )
        return drawn

    assert run() == OPTIONS.images * (1 + len(adapters_bench.cells(OPTIONS)))
    rows = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    by_path = {row["path"]: row for row in rows}
    assert len(by_path) == len(rows)
    for row in rows:
        assert hashlib.sha256((tmp_path / row["path"]).read_bytes()).hexdigest() == row["sha256"]
        if row["label"] == "ai":
            pair = by_path[row["paired_with"]]
            assert pair["label"] == ("ai" if row["adapter_id"] else "real")
            assert pair["prompt_id"] == row["prompt_id"]

    samples = list(open_dataset(tmp_path).samples())
    assert {sample.adapter_type for sample in samples if sample.rank == 4} == {kind.value for kind in AdapterType}

    manifest = tmp_path / "manifest.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[:-2]) + lines[-2][:40])
    before = (tmp_path / rows[-1]["path"]).read_bytes()
    assert run() == 2
    assert (tmp_path / rows[-1]["path"]).read_bytes() == before
    assert run() == 0
    assert len(manifest.read_text().splitlines()) == len(rows)


def test_a_run_with_other_options_does_not_go_on_in_the_same_place(
    model: LatentDiffusion, photographs: list[Photograph], tmp_path: Path
) -> None:
    few = OPTIONS.model_copy(update={"ranks": (2,), "types": (AdapterType.LORA,), "images": 1})
    for options in (few, few.model_copy(update={"images": 2})):
        adapters_bench.generate(model, photographs, [0] * 8, out=tmp_path, options=options, progress=lambda *_: None)
    other = few.model_copy(update={"train_steps": 1})
    with pytest.raises(OtherOptions, match="train_steps"):
        adapters_bench.generate(model, photographs, [0] * 8, out=tmp_path, options=other, progress=lambda *_: None)


def test_texts_are_encoded_once_with_sdxl_conditioning() -> None:
    asked: list[str] = []

    class Pipeline:
        def encode_prompt(self, prompt: str, **_: object) -> tuple[object, ...]:
            asked.append(prompt)
            return torch.zeros(1, 3, 4), None, torch.ones(1, 5), None

    condition = TextPrompts(Pipeline(), ["a cat", "a dog"], "cpu")
    given = condition([1, 0, 1, None], 64)
    condition([1], 64)
    assert sorted(asked) == ["", "a cat", "a dog"]
    assert given["encoder_hidden_states"].shape == (4, 3, 4)
    assert given["added_cond_kwargs"]["text_embeds"].shape == (4, 5)
    assert given["added_cond_kwargs"]["time_ids"].tolist()[0] == [64, 64, 0, 0, 64, 64]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text("{}\n")
    with pytest.raises(ManifestDamaged, match="line 1"):
        Record(tmp_path)


def test_a_row_needs_its_digest() -> None:
    with pytest.raises(ValueError, match="sha256"):
        BenchRow(path="a.png", label="real", sha256="00")


def test_progress_is_told_before_each_adapter(
    model: LatentDiffusion, photographs: list[Photograph], tmp_path: Path
) -> None:
    told: list[int] = []
    progress: Callable[[str, int, int], None] = lambda _, done, __: told.append(done)  # noqa: E731 - one line says it
    few = OPTIONS.model_copy(update={"ranks": (2,), "types": (AdapterType.LORA,), "images": 1})
    adapters_bench.generate(model, photographs, [0] * 8, out=tmp_path, options=few, progress=progress)
    assert told == [0, 1, 2]
