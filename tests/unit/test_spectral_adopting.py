"""The spectral stage takes another reference between two batches, and names it."""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.detection.spectral.analyser import SpectralAnalyser
from pipeline.detection.spectral.reference import SpectralReference, SpectralReferenceError
from pipeline.media.decode import decode_image
from schemas.media import StageScore
from tests.support.cases import suspect
from tests.support.entries import item
from tests.support.learning import random_reference
from tests.support.spectral_images import coloured, power_law
from tests.support.worker_stages import MEMORY, PANEL_PNG, BreakableStore, use_store
from workers.spectral import stage as spectral_stage
from workers.spectral.references import ReferenceFile, References
from workers.spectral.settings import SpectralSettings
from workers.spectral.stage import SpectralStage


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(coloured(power_law(160, 160, 1.7, 3))).save(buffer, "PNG")
    return buffer.getvalue()


DATA = picture()


def saved(reference: SpectralReference, directory: Path) -> ReferenceFile:
    path = directory / f"{reference.content_hash}.npz"
    reference.save(path)
    return ReferenceFile(reference.content_hash, path)


def weighed(weight: float) -> SpectralReference:
    """Says another probability than the bundle's reference."""
    strata = {
        name: replace(stratum, weights=np.full(stratum.weights.shape, weight))
        for name, stratum in random_reference().strata.items()
    }
    return SpectralReference(strata)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> SpectralStage:
    monkeypatch.setattr(spectral_stage, "render_panel", lambda image, analysis: PANEL_PNG)
    made = SpectralStage(None, SpectralSettings(processes=1), MEMORY)
    store = BreakableStore()
    use_store(made, store)
    store.put("acme", hashlib.sha256(DATA).hexdigest(), DATA)
    made.open()
    return made


def scored(stage: SpectralStage) -> StageScore:
    """The spectral score of whatever the stage makes of the picture."""
    (outcome,) = stage.process([item(tenant="acme", value=suspect(data=DATA))])
    record: Any = outcome.outputs[0].record  # type: ignore[union-attr]  # an Emit, or this fails
    score: StageScore = record.scores[-1]
    return score


def test_another_reference_decides_from_the_next_batch_on(stage: SpectralStage, tmp_path: Path) -> None:
    low, high = saved(weighed(-0.05), tmp_path), saved(weighed(0.05), tmp_path)
    before = scored(stage)
    stage.adopt(References(low))
    after = scored(stage)
    stage.adopt(References(high))
    last = scored(stage)
    stage.adopt(References())
    assert before.model == "spectral/spectral_reference.npz"
    assert after.model == f"spectral/reference-{low.version}"
    assert last.model == f"spectral/reference-{high.version}"
    assert len({before.score, after.score, last.score}) == 3
    assert after.score == SpectralAnalyser(low.path).analyse(decode_image(DATA)).score
    assert scored(stage) == before


def test_a_candidate_watches_and_changes_nothing_else(stage: SpectralStage, tmp_path: Path) -> None:
    file = saved(weighed(0.05), tmp_path)
    before = scored(stage)
    stage.adopt(References(None, file))
    watched = scored(stage)
    assert watched.model_copy(update={"candidate": None}) == before
    assert watched.candidate is not None
    assert watched.candidate.model == f"spectral/reference-{file.version}"
    assert watched.candidate.score == SpectralAnalyser(file.path).analyse(decode_image(DATA)).score
    assert watched.candidate.score != watched.score
    stage.adopt(References(file))
    assert scored(stage).score == watched.candidate.score
    assert scored(stage).candidate is None


def test_what_has_not_changed_is_not_read_again(stage: SpectralStage, tmp_path: Path) -> None:
    file = saved(weighed(0.05), tmp_path)
    stage.adopt(References(file))
    before = scored(stage)
    file.path.unlink()
    stage.adopt(pickle.loads(pickle.dumps(References(file))))
    assert scored(stage) == before


def test_a_file_that_holds_something_else_is_not_adopted(stage: SpectralStage, tmp_path: Path) -> None:
    file = saved(weighed(0.05), tmp_path)
    with pytest.raises(SpectralReferenceError, match="holds another reference than"):
        stage.adopt(References(replace(file, version="f" * 64)))
    file.path.write_bytes(b"nothing")
    with pytest.raises(SpectralReferenceError, match="not a readable"):
        stage.adopt(References(None, file))


def test_an_image_without_a_spectrum_has_no_second_score(tmp_path: Path) -> None:
    analyser = SpectralAnalyser(saved(weighed(0.05), tmp_path).path)
    buffer = io.BytesIO()
    Image.new("RGB", (160, 160), "grey").save(buffer, "PNG")
    flat = analyser.analyse(decode_image(buffer.getvalue()))
    assert flat.score is None
    assert analyser.score_of(flat) is None


@pytest.mark.parametrize("seed", range(4))
def test_scoring_a_measurement_again_gives_what_analysing_gives(seed: int, tmp_path: Path) -> None:
    one, other = (SpectralAnalyser(saved(weighed(w), tmp_path).path) for w in (0.01, 0.04))
    buffer = io.BytesIO()
    kind = ("PNG", "JPEG", "WEBP", "JPEG")[seed]
    Image.fromarray(coloured(power_law(140 + 10 * seed, 150, 1.6, seed), seed)).save(
        buffer, kind, quality=75 + 5 * seed
    )
    image = decode_image(buffer.getvalue())
    assert other.score_of(one.analyse(image)) == other.analyse(image).score
