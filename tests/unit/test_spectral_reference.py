"""Fitting, distances, p-values and the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.detection.spectral import density
from pipeline.detection.spectral import reference as references
from pipeline.detection.spectral.few_shot import save_by_hash
from pipeline.detection.spectral.fitting import FIT, fit_stratum, one_copy_each, parts_of
from pipeline.detection.spectral.pvalues import TooFewPhotographs
from pipeline.detection.spectral.reference import FamilyDirection, SpectralReference, SpectralReferenceError
from pipeline.detection.spectral.score import percentiles, score
from tests.support.spectral_images import small_reference


@pytest.fixture(scope="module")
def reference() -> SpectralReference:
    return small_reference()


def rewrite(path: Path, **changes: object) -> None:
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    arrays.update(changes)
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})


def test_percentiles_interpolate_and_stop_at_the_ends() -> None:
    quantiles = references.QUANTILE_LEVELS[:, None] * np.array([[1.0, 2.0]])

    assert percentiles(np.array([50.0, 60.0]), quantiles).tolist() == [50.0, 30.0]
    assert percentiles(np.array([-5.0, 500.0]), quantiles).tolist() == [0.0, 100.0]


def test_ledoit_wolf_approaches_the_truth_with_many_rows_and_the_target_with_few() -> None:
    rng = np.random.default_rng(0)
    truth = np.diag([1.0, 4.0, 9.0])
    many = rng.normal(size=(20_000, 3)) * [1, 2, 3]
    few = rng.normal(size=(4, 40)) * np.linspace(1, 3, 40)

    assert density.ledoit_wolf(many) == pytest.approx(truth, abs=0.3)
    shrunk = density.ledoit_wolf(few)
    assert np.linalg.eigvalsh(shrunk).min() > 0.1 * np.trace(shrunk) / 40
    assert np.trace(shrunk) == pytest.approx(np.trace(few.T @ few / 4))


def test_ledoit_wolf_shrinkage_equals_the_definition() -> None:
    rows = np.random.default_rng(1).normal(size=(30, 5)) * [1, 1, 2, 3, 4]
    sample = rows.T @ rows / 30
    mu = np.trace(sample) / 5
    b2 = sum(np.square(np.outer(x, x) - sample).sum() for x in rows) / 30**2
    rho = min(b2 / np.square(sample - mu * np.eye(5)).sum(), 1.0)

    assert density.ledoit_wolf(rows) == pytest.approx(rho * mu * np.eye(5) + (1 - rho) * sample)


def test_photographs_of_the_fitted_kind_are_flagged_at_about_the_nominal_rate() -> None:
    rng = np.random.default_rng(2)
    fitted = fit_stratum(rng.normal(size=(400, 6)), np.zeros((400, 64)), np.arange(400), parts_of(400, 0))

    fresh = [score(x, fitted).p_value for x in rng.normal(size=(1000, 6))]
    odd = [score(x, fitted).p_value for x in rng.normal(3.0, 1.0, size=(100, 6))]

    assert 0.02 < np.mean(np.array(fresh) <= 0.05) < 0.09
    assert np.mean(np.array(odd) <= 0.05) > 0.9


def test_one_wild_feature_is_clipped() -> None:
    z = density.standardised(np.array([1e9, -1e9]), np.zeros(2), np.ones(2))

    assert z.tolist() == [density.MAX_Z, -density.MAX_Z]


def test_too_few_photographs_and_constant_features_are_refused() -> None:
    copies = np.random.default_rng(0).normal(size=(198, 2))
    with pytest.raises(ValueError, match="99 photographs, at least 100"):
        fit_stratum(copies, np.zeros((198, 64)), np.repeat(np.arange(99), 2), parts_of(99, 0))
    with pytest.raises(ValueError, match=r"features \[0, 1\] do not vary"):
        fit_stratum(np.ones((120, 2)), np.zeros((120, 64)), np.arange(120), parts_of(120, 0))


def test_copies_of_a_photograph_are_fitted_together_and_ranked_once() -> None:
    rng = np.random.default_rng(0)
    photograph = rng.permutation(np.repeat(np.arange(200), 3))
    fitted = fit_stratum(rng.normal(size=(600, 4)), np.zeros((600, 64)), photograph, parts_of(200, 0))

    assert fitted.photographs == 200
    assert fitted.neighbours.shape == (100, 4)
    assert fitted.calibration.size == fitted.mahalanobis_ranks.size == len(fitted.held_out) == 50
    assert (parts_of(200, 0) == FIT).sum() == 100
    once = one_copy_each(photograph, 0)
    assert sorted(photograph[once].tolist()) == list(range(200))


def test_whitened_photographs_have_unit_covariance() -> None:
    rows = np.random.default_rng(0).normal(size=(500, 3)) @ np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 0.5], [0, 0, 3.0]])
    whitened = rows @ density.whitening_of(np.cov(rows.T))

    assert np.cov(whitened.T) == pytest.approx(np.eye(3), abs=1e-9)
    assert density.mahalanobis(whitened)[0] ** 2 == pytest.approx(rows[0] @ np.linalg.inv(np.cov(rows.T)) @ rows[0])


def test_the_neighbour_distance_is_the_mean_of_the_five_nearest() -> None:
    line = np.arange(10.0)[:, None]

    assert density.neighbour_distance(np.array([[0.0], [20.0]]), line) == pytest.approx([2.0, 13.0])


def test_a_level_beyond_the_photographs_is_an_error(reference: SpectralReference) -> None:
    reference.require_level(0.05)
    with pytest.raises(TooFewPhotographs, match=r"30 ranked photographs .* level 0\.01, which needs 99"):
        reference.require_level(0.01)


def test_the_hash_names_what_the_reference_says(reference: SpectralReference, tmp_path: Path) -> None:
    changed = dict(reference.strata)
    changed["lossless/any"] = replace(changed["lossless/any"], intercept=np.array(0.1))
    other = SpectralReference(changed, parent=reference.content_hash)
    path = save_by_hash(other, tmp_path)

    assert other.content_hash != reference.content_hash
    assert path.name == f"spectral_reference-{other.content_hash[:12]}.npz"
    assert SpectralReference.load(path).content_hash == other.content_hash
    assert SpectralReference.load(path).parent == reference.content_hash
    rewrite(path, **{"lossless/any.intercept": np.array(0.2)})
    with pytest.raises(SpectralReferenceError, match="content_hash is not that of its arrays"):
        SpectralReference.load(path)


def test_families_survive_the_file(reference: SpectralReference, tmp_path: Path) -> None:
    name = "jpeg_70_84/any"
    direction = FamilyDirection(np.arange(reference.strata[name].median.size) / 7, np.array(-0.3))
    changed = {**reference.strata, name: replace(reference.strata[name], families={"flux.2": direction})}
    SpectralReference(changed).save(tmp_path / "r.npz")
    loaded = SpectralReference.load(tmp_path / "r.npz")

    assert loaded.families == {"flux.2"}
    assert loaded.strata[name].families["flux.2"].weights.tolist() == direction.weights.tolist()
    rewrite(tmp_path / "r.npz", **{f"families/flux.2/{name}.intercept": None})
    with pytest.raises(SpectralReferenceError, match=r"flux\.2.*intercept` is missing"):
        SpectralReference.load(tmp_path / "r.npz")


def test_a_reference_survives_the_file_bit_by_bit(reference: SpectralReference, tmp_path: Path) -> None:
    reference.save(tmp_path / "a.npz")
    loaded = SpectralReference.load(tmp_path / "a.npz")
    loaded.save(tmp_path / "b.npz")

    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert set(loaded.strata) == set(reference.strata)
    assert not loaded.strata["lossless/any"].whitening.flags.writeable


def test_pickles_are_refused(reference: SpectralReference, tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    reference.save(path)
    rewrite(path, **{"lossless/any.median": np.array([{"a": 1}], dtype=object)})

    with pytest.raises(SpectralReferenceError, match=r"r\.npz: not a readable \.npz without pickles"):
        SpectralReference.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": np.array(99)}, "not of format 2"),
        ({"feature_names": np.array(["other"])}, "other features"),
        ({"lossless/any.mean": np.zeros(3)}, r"`lossless/any\.mean` has shape \(3,\)"),
        ({"lossless/any.mean": None}, r"`lossless/any\.mean` is missing"),
        ({"lossless/any.intercept": np.array(np.nan)}, "not finite"),
        ({"lossless/any.calibration": np.zeros(0)}, "calibration"),
        ({"lossless/any.neighbours": np.zeros((4, 3), np.float32)}, "neighbours` has shape"),
        ({"lossless/any.generated": np.zeros((0, 3), np.float32)}, "generated` has shape"),
        ({"lossless/any.feature_ranks": np.zeros((30, 1))}, "feature_ranks` has shape"),
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
