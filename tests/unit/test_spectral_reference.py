"""Fitting, distances, p-values and the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.detection.spectral import reference as references
from pipeline.detection.spectral.reference import SpectralReference, SpectralReferenceError
from pipeline.detection.spectral.score import conformal_p_value, percentiles, score
from tests.support.spectral_images import small_reference


@pytest.fixture(scope="module")
def reference() -> SpectralReference:
    return small_reference()


def rewrite(path: Path, **changes: object) -> None:
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    arrays.update(changes)
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})


@pytest.mark.parametrize(
    ("distance", "expected"), [(0.5, 1.0), (1.0, 1.0), (1.5, 4 / 5), (3.0, 3 / 5), (4.0, 2 / 5), (9.0, 1 / 5)]
)
def test_p_value_counts_calibration_distances_at_least_as_large(distance: float, expected: float) -> None:
    assert conformal_p_value(distance, np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(expected)


def test_ties_count_as_at_least_as_large() -> None:
    assert conformal_p_value(2.0, np.array([1.0, 2.0, 2.0, 2.0])) == pytest.approx(4 / 5)


def test_percentiles_interpolate_and_stop_at_the_ends() -> None:
    quantiles = references.QUANTILE_LEVELS[:, None] * np.array([[1.0, 2.0]])

    assert percentiles(np.array([50.0, 60.0]), quantiles).tolist() == [50.0, 30.0]
    assert percentiles(np.array([-5.0, 500.0]), quantiles).tolist() == [0.0, 100.0]


def test_ledoit_wolf_approaches_the_truth_with_many_rows_and_the_target_with_few() -> None:
    rng = np.random.default_rng(0)
    truth = np.diag([1.0, 4.0, 9.0])
    many = rng.normal(size=(20_000, 3)) * [1, 2, 3]
    few = rng.normal(size=(4, 40)) * np.linspace(1, 3, 40)

    assert references.ledoit_wolf(many) == pytest.approx(truth, abs=0.3)
    shrunk = references.ledoit_wolf(few)
    assert np.linalg.eigvalsh(shrunk).min() > 0.1 * np.trace(shrunk) / 40
    assert np.trace(shrunk) == pytest.approx(np.trace(few.T @ few / 4))


def test_ledoit_wolf_shrinkage_equals_the_definition() -> None:
    rows = np.random.default_rng(1).normal(size=(30, 5)) * [1, 1, 2, 3, 4]
    sample = rows.T @ rows / 30
    mu = np.trace(sample) / 5
    b2 = sum(np.square(np.outer(x, x) - sample).sum() for x in rows) / 30**2
    rho = min(b2 / np.square(sample - mu * np.eye(5)).sum(), 1.0)

    assert references.ledoit_wolf(rows) == pytest.approx(rho * mu * np.eye(5) + (1 - rho) * sample)


def test_photographs_of_the_fitted_kind_are_flagged_at_about_the_nominal_rate() -> None:
    rng = np.random.default_rng(2)
    fitted = references.fit_stratum(rng.normal(size=(400, 6)), np.zeros((400, 64)), seed=0)

    fresh = [score(x, fitted).p_value for x in rng.normal(size=(1000, 6))]
    odd = [score(x, fitted).p_value for x in rng.normal(3.0, 1.0, size=(100, 6))]

    assert 0.02 < np.mean(np.array(fresh) <= 0.05) < 0.09
    assert np.mean(np.array(odd) <= 0.05) > 0.9


def test_one_wild_feature_is_clipped() -> None:
    z = references.standardised(np.array([1e9, -1e9]), np.zeros(2), np.ones(2))

    assert z.tolist() == [references.MAX_Z, -references.MAX_Z]


def test_too_few_photographs_and_constant_features_are_refused() -> None:
    with pytest.raises(ValueError, match="49 photographs, at least 50"):
        references.fit_stratum(np.random.default_rng(0).normal(size=(49, 2)), np.zeros((49, 64)), 0)
    with pytest.raises(ValueError, match=r"features \[0, 1\] do not vary"):
        references.fit_stratum(np.ones((60, 2)), np.zeros((60, 64)), 0)


def test_a_reference_survives_the_file_bit_by_bit(reference: SpectralReference, tmp_path: Path) -> None:
    reference.save(tmp_path / "a.npz")
    loaded = SpectralReference.load(tmp_path / "a.npz")
    loaded.save(tmp_path / "b.npz")

    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert set(loaded.strata) == set(reference.strata)
    assert not loaded.strata["lossless/any"].precision.flags.writeable


def test_pickles_are_refused(reference: SpectralReference, tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    reference.save(path)
    rewrite(path, **{"lossless/any.median": np.array([{"a": 1}], dtype=object)})

    with pytest.raises(SpectralReferenceError, match=r"r\.npz: not a readable \.npz without pickles"):
        SpectralReference.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": np.array(99)}, "not of format 1"),
        ({"feature_names": np.array(["other"])}, "other features"),
        ({"lossless/any.mean": np.zeros(3)}, r"`lossless/any\.mean` has shape \(3,\)"),
        ({"lossless/any.mean": None}, r"`lossless/any\.mean` is missing"),
        ({"lossless/any.intercept": np.array(np.nan)}, "not finite"),
        ({"lossless/any.calibration": np.zeros(0)}, "calibration"),
    ],
)
def test_a_damaged_file_is_named(
    reference: SpectralReference, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = tmp_path / "r.npz"
    reference.save(path)
    rewrite(path, **changes)

    with pytest.raises(SpectralReferenceError, match=message) as raised:
        SpectralReference.load(path)
    assert str(path) in str(raised.value)


def test_missing_strata_and_files_are_named(reference: SpectralReference, tmp_path: Path) -> None:
    kept = {name: s for name, s in reference.strata.items() if name != "lossy/any"}
    SpectralReference(kept).save(tmp_path / "r.npz")
    (tmp_path / "junk.npz").write_bytes(b"PK\x03\x04 not a zip")

    with pytest.raises(SpectralReferenceError, match="lacks the strata lossy/any"):
        SpectralReference.load(tmp_path / "r.npz")
    for name in ("absent.npz", "junk.npz"):
        with pytest.raises(SpectralReferenceError, match=name):
            SpectralReference.load(tmp_path / name)


def test_lookup_falls_back_to_the_pooled_reference(reference: SpectralReference) -> None:
    assert reference.lookup("jpeg_85_94/768_1024")[0] == "jpeg_85_94/any"
    assert reference.lookup("lossy_unknown/128_383")[0] == "lossy/any"
