"""Rules that only watch: what they measure, what they say, and that they touch nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.detection.bundle import BundleError, read_manifest, write_manifest
from pipeline.detection.classifier.preprocess import CropSpec, crops
from pipeline.detection.policy import DEFAULT_THRESHOLDS, Policy
from pipeline.detection.shadow import Shadow
from pipeline.detection.shadow_settings import ShadowSettings
from pipeline.media.decode import DecodedImage, DecodeLimits, decode_image
from pipeline.streaming.stage import Emit
from schemas.decision import Outcome, Risk
from schemas.media import EvidenceRef, MediaReference, ShadowTrail, StageScore
from schemas.shadow import ShadowResult
from schemas.topics import Topic
from schemas.types import StageName
from tests.support.cases import anomalous, decision, score, suspect
from tests.support.entries import item as plain_item
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.worker_stages import (
    DATA,
    PANEL_PNG,
    FakeClassifier,
    FakedClassifier,
    FakedMllm,
    FakedSpectral,
    analysis,
    png,
    shipped_bundle,
)
from workers.classifier import stage as classifier_stage
from workers.classifier.settings import ClassifierSettings
from workers.classifier.shadow import ClassifierShadow
from workers.classifier.stage import _make_decoder
from workers.spectral import stage as spectral_stage
from workers.spectral.shadow import SpectralShadow

LOWER = Policy(version="lower", thresholds=DEFAULT_THRESHOLDS.model_copy(update={"t1": 0.05, "t2": 0.1}))


def shadow(policy: Policy = LOWER, *, own_pixels: bool = False, asks_alike: bool = True, share: float = 1.0) -> Shadow:
    return Shadow(shipped_bundle(), policy, own_pixels, share, asks_alike)


def result_of(outcome: Any) -> ShadowResult:
    assert isinstance(outcome, Emit), outcome
    live, watched = outcome.outputs
    assert live.topic is not Topic.SHADOW_RESULTS
    assert (watched.topic, watched.key) == (Topic.SHADOW_RESULTS, live.key)
    assert isinstance(watched.record, ShadowResult)
    return watched.record


def passed(faked: FakedClassifier, live_score: float) -> Any:
    faked.classifier.gives = live_score
    return faked.process(plain_item(tenant="acme", value=MediaReference(uri="file:///x", tenant="acme")))


def watching_classifier(rules: Shadow, its: FakeClassifier | None = None) -> FakedClassifier:
    faked = FakedClassifier(audit_sample={"share": 0})
    faked.stage._shadow.rules = rules
    faked.stage._shadow._classifier = its  # type: ignore[assignment]  # a fake at the seam
    faked.stage._verdicts = replace(faked.stage._verdicts, shadow=rules)
    return faked


def test_a_policy_alone_judges_the_live_scores() -> None:
    found = result_of(passed(watching_classifier(shadow()), 0.01))
    assert (found.outcome, found.shadow_outcome, found.shadow_risk) == (Outcome.PASS, Outcome.PASS, Risk.RELEASED)
    found = result_of(passed(watching_classifier(shadow()), 0.2))
    assert (found.outcome, found.shadow_outcome, found.shadow_stage) == (Outcome.PASS, None, StageName.SPECTRAL)
    assert found.why == "decided at the classifier stage; the spectral stage has no score of it"


def test_a_bundle_scores_the_same_crops_and_the_trail_goes_on() -> None:
    its = FakeClassifier()
    its.gives = 0.6
    faked = watching_classifier(shadow(own_pixels=True), its)
    outcome = passed(faked, 0.5)
    (output,) = outcome.outputs
    trail = output.record.shadow
    assert [(s.stage, s.score) for s in trail.scores] == [(StageName.CLASSIFIER, 0.6)]
    assert [t.stage for t in trail.timings] == [StageName.CLASSIFIER]
    assert [s.score for s in output.record.scores] == [0.5], "the live scores are the live ones"


def test_a_shadow_that_fails_leaves_the_live_decision_alone() -> None:
    its = FakeClassifier()
    its.gives = ZeroDivisionError("shadow")
    outcome = passed(watching_classifier(shadow(own_pixels=True), its), 0.1)
    assert [output.topic for output in outcome.outputs] == [Topic.PASS]


def test_a_shadow_that_cannot_be_compared_leaves_the_live_decision_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("walk")

    monkeypatch.setattr(Shadow, "verdict", broken)
    assert [output.topic for output in passed(watching_classifier(shadow()), 0.1).outputs] == [Topic.PASS]


def test_squares_of_the_shadow_that_cannot_be_cut_leave_the_live_ones_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(rgb: Any, spec: CropSpec) -> Any:
        if spec.size_px == 64:
            raise MemoryError("no room for another cut")
        return crops(rgb, spec)

    monkeypatch.setattr(classifier_stage, "crops", cut)
    decoded = classifier_stage._Decoder(DecodeLimits(), CropSpec(), CropSpec(size_px=64))(png(), None)
    assert decoded.crops.shape[1:] == (256, 256, 3)
    assert (decoded.shadow_crops, decoded.shadow_error) == (None, "MemoryError: no room for another cut")
    its = FakeClassifier()
    faked = watching_classifier(shadow(own_pixels=True), its)
    faked.sandbox.gives = decoded
    assert [output.topic for output in passed(faked, 0.1).outputs] == [Topic.PASS], "no trail, so nothing is compared"


def test_what_is_not_drawn_is_not_compared() -> None:
    rules = shadow(share=1e-12)
    assert [o.topic for o in passed(watching_classifier(rules), 0.1).outputs] == [Topic.PASS]
    assert rules.trail(suspect().admission.decision_uid) is None


@pytest.fixture
def spectral(monkeypatch: pytest.MonkeyPatch) -> FakedSpectral:
    monkeypatch.setattr(spectral_stage, "render_panel", lambda image, analysis: PANEL_PNG)
    return FakedSpectral()


def trail_of(rules: Shadow, *scores: StageScore) -> ShadowTrail:
    return ShadowTrail(bundle_version=rules.bundle.version, policy_version=rules.policy.version, scores=scores)


def test_stage_2_compares_both_references(spectral: FakedSpectral) -> None:
    rules = shadow(Policy(version="same"), own_pixels=True)
    spectral.stage._shadow.rules = rules
    spectral.stage._verdicts = replace(spectral.stage._verdicts, shadow=rules)
    its = spectral.analyser.__class__()
    its.gives = analysis(0.2)
    spectral.stage._shadow._analyser = its  # type: ignore[assignment]  # a fake at the seam
    spectral.analyser.gives = analysis(0.3)
    media = suspect(0.5, data=png()).model_copy(update={"shadow": trail_of(rules, score(StageName.CLASSIFIER, 0.6))})
    found = result_of(spectral.process(plain_item(tenant="acme", value=media)))
    assert (found.shadow_outcome, found.shadow_risk) == (Outcome.PASS, Risk.LOW_RISK)
    assert [s.score for s in found.shadow.scores] == [0.6, 0.2]
    assert [s.score for s in found.scores] == [0.5, 0.3]


def test_stage_3_uses_the_one_answer_for_both() -> None:
    faked = FakedMllm()
    rules = shadow(Policy(version="strict", thresholds=DEFAULT_THRESHOLDS.model_copy(update={"t3_block": 0.99})))
    faked.stage._verdicts = replace(faked.stage._verdicts, shadow=rules)
    panel = EvidenceRef(kind="spectral_panel", uri=faked.panel_uri, sha256=faked.panel_sha256)
    media = anomalous(0.9, 0.9, data=DATA, panel=panel)
    found = result_of(faked.process(plain_item(tenant="acme", value=media)))
    assert (found.outcome, found.shadow_outcome) == (Outcome.BLOCK, Outcome.ESCALATE)
    assert len(faked.verifier.requests) == 1


def test_an_answer_to_another_question_says_nothing() -> None:
    rules = shadow(Policy(version="same"), asks_alike=False)
    scores = tuple(score(stage, 0.9) for stage in StageName)
    made = decision(Outcome.BLOCK).model_copy(update={"scores": scores, "stage_exited": StageName.MLLM})
    found = rules.result(made, None)
    assert found is not None
    assert (found.shadow_outcome, found.why) == (None, "the shadow's bundle asks the model another question")


def test_a_trail_of_other_rules_is_not_mixed_in() -> None:
    rules = shadow(own_pixels=True)
    other = trail_of(rules).model_copy(update={"policy_version": "older"})
    assert rules.result(decision(), other) is None
    assert rules.result(decision(), None) is None


# Loading


def test_nothing_configured_is_no_shadow() -> None:
    assert Shadow.load(ShadowSettings(), shipped_bundle()) is None
    with pytest.raises(ValidationError, match=r"share: give shadow\.bundle or shadow\.policy too"):
        ShadowSettings(share=0.5)


def test_a_policy_needs_the_bundles_prior(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(Policy(version="x", fusion={"prior": 0.9}).model_dump_json(), encoding="utf-8")
    with pytest.raises(BundleError, match=r"fusion\.prior 0\.9 differs"):
        Shadow.load(ShadowSettings(policy=path), shipped_bundle())
    with pytest.raises(BundleError, match=r"shadow\.policy: .*absent\.json"):
        Shadow.load(ShadowSettings(policy=tmp_path / "absent.json"), shipped_bundle())


def test_another_bundle_is_loaded_and_scores_other_squares(tmp_path: Path) -> None:
    directory = make_tiny_bundle(tmp_path / "second")
    part = ClassifierShadow(ShadowSettings(bundle=directory), shipped_bundle(), ClassifierSettings())
    assert part.rules is not None
    assert part.crop_spec == CropSpec(size_px=64)
    decoder = _make_decoder(DecodeLimits(), CropSpec(), part.crop_spec)
    decoded = decoder(png(), None)
    assert decoded.crops.shape[1:] == (256, 256, 3)
    assert decoded.shadow_crops is not None
    assert decoded.shadow_crops.shape[1:] == (64, 64, 3)
    part.open()
    try:
        trail = part.trail(suspect().admission, np.full((1, 64, 64, 3), 250, np.uint8))
    finally:
        part.close()
    assert trail is not None
    (measured,) = trail.scores
    assert (measured.bundle_version, measured.model) == ("tiny", "brightness")
    assert measured.score is not None
    assert measured.score > 0.9


def test_another_reference_is_loaded_and_measures(tmp_path: Path) -> None:
    directory = make_tiny_bundle(tmp_path / "second")
    part = SpectralShadow(ShadowSettings(bundle=directory), shipped_bundle())
    assert part.rules is not None
    part.open()
    trail = part.trail(trail_of(part.rules), decode_image(png(), DecodeLimits()))
    part.close()
    assert trail is not None
    (measured,) = trail.scores
    assert (measured.stage, measured.model, measured.bundle_version) == (
        StageName.SPECTRAL,
        "spectral/spectral.npz",
        "tiny",
    )


def test_a_bundle_without_a_reference_is_no_shadow_of_stage_2(tmp_path: Path) -> None:
    directory = make_tiny_bundle(tmp_path / "second")
    write_manifest(directory, read_manifest(directory).model_copy(update={"spectral": None}))
    with pytest.raises(BundleError, match=r"shadow\.bundle: .*has no spectral reference"):
        SpectralShadow(ShadowSettings(bundle=directory), shipped_bundle())


def test_alike_squares_are_cut_once() -> None:
    assert _make_decoder(DecodeLimits(), CropSpec(), CropSpec())(png(), None).shadow_crops is None


def test_the_image_that_stage_2_shares_is_one_object(spectral: FakedSpectral) -> None:
    seen: list[DecodedImage] = []
    rules = shadow(own_pixels=True)

    class Remembers:
        def analyse(self, image: DecodedImage) -> Any:
            seen.append(image)
            return analysis(0.9)

    spectral.stage._shadow.rules = rules
    spectral.stage._shadow._analyser = spectral.stage._analyser = Remembers()  # type: ignore[assignment]  # a fake
    media = suspect(0.5, data=png()).model_copy(update={"shadow": trail_of(rules)})
    spectral.process(plain_item(tenant="acme", value=media))
    first, second = seen
    assert first is second
