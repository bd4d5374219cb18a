"""The three stages with fakes at their seams: origin, sandbox, model, store, analyser, verifier."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from pipeline.detection.bundle import Bundle
from pipeline.detection.mllm.backends.base import VerifyRequest, VerifyResult
from pipeline.detection.mllm.trace import Trace
from pipeline.detection.mllm.verdict import opinion_of
from pipeline.detection.policy import Policy
from pipeline.detection.spectral.analyser import SpectralAnalysis
from pipeline.media.content_store import ContentStore
from pipeline.media.decode import DecodedImage
from pipeline.media.errors import StoreUnavailable
from pipeline.media.fetch import Fetched
from pipeline.media.objects import Objects, Versioned
from pipeline.media.store_settings import StoreSettings
from pipeline.streaming.stage import Emit, Item, Outcome
from schemas.decision import Decision
from schemas.decision import Outcome as Verdict
from schemas.forensics import ForensicReport, Hypothesis
from schemas.media import Feature, MediaReference
from schemas.topics import DECISION_TOPICS, Topic
from schemas.types import StageName
from tests.support.cases import facts
from workers.classifier.settings import ClassifierSettings
from workers.classifier.stage import ClassifierStage, Decoded
from workers.mllm.stage import MllmStage
from workers.spectral.settings import SpectralSettings
from workers.spectral.stage import SpectralStage
from workers.verdicts import Verdicts

DATA = b"original bytes"
PANEL_PNG = b"\x89PNG\r\n\x1a\n panel"
MEMORY = StoreSettings(url="memory://")


POLICY = Policy(version="test")


@cache
def shipped_bundle() -> Bundle:
    """The shipped models under the default policy, so that no test hangs on the shipped thresholds."""
    return replace(Bundle.load(), policy=POLICY)


@cache
def png() -> bytes:
    """A small picture that really decodes."""
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64 * 48 * 3, dtype=np.uint8).reshape(48, 64, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def given(what: Any) -> Any:
    """The scripted value, or the scripted error raised."""
    if isinstance(what, Exception):
        raise what
    return what


class BreakableObjects(Objects):
    """Objects in memory that can be down."""

    down = False

    def create(self, key: str, data: bytes) -> bool:
        self._check()
        return super().create(key, data)

    def replace(self, key: str, data: bytes) -> None:
        self._check()
        super().replace(key, data)

    def read_versioned(self, key: str) -> Versioned:
        self._check()
        return super().read_versioned(key)

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailable("disk full")


class BreakableStore(ContentStore):
    """A store in memory that can be down."""

    def __init__(self) -> None:
        super().__init__("memory://")
        self.objects: BreakableObjects = BreakableObjects("memory://")

    @property
    def down(self) -> bool:
        return self.objects.down

    @down.setter
    def down(self, down: bool) -> None:
        self.objects.down = down

    def names(self) -> list[str]:
        """Of everything that is kept."""
        return sorted(found.key for found in self.list_objects(""))


def use_store(stage: Any, store: ContentStore) -> None:
    """Put another store into a stage."""
    stage._store = store
    stage._verdicts = replace(stage._verdicts, store=store)


class FakeFetcher:
    """Gives what is scripted; remembers the attempts."""

    def __init__(self) -> None:
        self.gives: Fetched | Exception = Fetched(DATA, hashlib.sha256(DATA).hexdigest(), "image/jpeg")
        self.attempts: list[int] = []

    def open(self) -> None: ...

    def close(self) -> None: ...

    def fetch(self, ref: MediaReference, attempt: int = 1) -> Fetched:
        self.attempts.append(attempt)
        return given(self.gives)  # type: ignore[no-any-return]  # as scripted


class FakeSandbox:
    """Gives what is scripted; remembers the declared content types."""

    def __init__(self) -> None:
        self.gives: Decoded | Exception = Decoded(np.zeros((1, 32, 32, 3), np.uint8), facts(DATA))
        self.declared: list[str | None] = []

    def open(self) -> None: ...

    def close(self) -> None: ...

    def call(self, data: bytes, declared_content_type: str | None = None) -> Decoded:
        self.declared.append(declared_content_type)
        return given(self.gives)  # type: ignore[no-any-return]  # as scripted


class FakeClassifier:
    """Says one score."""

    model = "fake-model"

    def __init__(self) -> None:
        self.gives: float | Exception = 0.5

    def open(self) -> None: ...

    def close(self) -> None: ...

    def score(self, crops: Any) -> float:
        return given(self.gives)  # type: ignore[no-any-return]  # as scripted


class FakedClassifier:
    """A ClassifierStage and its fakes."""

    def __init__(self, **settings: Any) -> None:
        self.stage = ClassifierStage(shipped_bundle(), ClassifierSettings.model_validate(settings), MEMORY)
        self.fetcher, self.sandbox, self.classifier = FakeFetcher(), FakeSandbox(), FakeClassifier()
        self.store = BreakableStore()
        self.stage._fetcher = self.fetcher  # type: ignore[assignment]  # a fake at the seam, as below
        self.stage._sandbox = self.sandbox  # type: ignore[assignment]
        self.stage._classifier = self.classifier  # type: ignore[assignment]
        use_store(self.stage, self.store)

    def process(self, item: Item[MediaReference]) -> Outcome:
        (outcome,) = self.stage.process([item])
        return outcome


def analysis(score: float | None, not_applicable: str | None = None) -> SpectralAnalysis:
    return SpectralAnalysis(
        score=score,
        p_value=None if score is None else 0.01,
        stratum="png",
        features=tuple(Feature(name=f"f{i}", value=float(i), percentile=float(i)) for i in range(12)),
        contributions=(0.0,) * 12,
        not_applicable=not_applicable,
        reference_stratum="png",
        photographs=100,
        measurement=None,
        radial_band=np.zeros((5, 64)),
    )


class FakeAnalyser:
    """Says one analysis."""

    def __init__(self) -> None:
        self.gives = analysis(0.9)

    def analyse(self, image: DecodedImage) -> SpectralAnalysis:
        return self.gives


class FakedSpectral:
    """A SpectralStage and its fakes; `png()` is in the store. The test replaces `render_panel`."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.stage = SpectralStage(None, SpectralSettings(processes=1), MEMORY)
        self.stage._bundle = replace(shipped_bundle(), policy=policy)
        self.store, self.analyser = BreakableStore(), FakeAnalyser()
        self.stage._verdicts = Verdicts(StageName.SPECTRAL, policy, self.store)
        self.stage._store = self.store
        self.stage._analyser = self.analyser  # type: ignore[assignment]  # a fake at the seam
        self.sha256 = hashlib.sha256(png()).hexdigest()
        self.store.put("acme", self.sha256, png())

    def process(self, item: Item[Any]) -> Outcome:
        (outcome,) = self.stage.process([item])
        return outcome


def report(hypothesis: Hypothesis = Hypothesis.GAN, confidence: float = 0.9) -> ForensicReport:
    return ForensicReport(
        observations=(),
        spatial_correlation="none",
        alternative_explanations=(),
        hypothesis=hypothesis,
        rank_guess=None,
        confidence=confidence,
        primary_evidence="peaks at 1/8",
    )


def reported(made: ForensicReport, trace: Trace | None = None, *, calibrated: bool = False) -> VerifyResult:
    """As a verifier gives it, with the opinion that the report states."""
    opinion = replace(opinion_of(made, ()), calibrated=calibrated)
    return VerifyResult(report=made, opinion=opinion, model="fake-mllm", trace=trace, duration_s=0.5)


class FakeVerifier:
    """Gives what is scripted; remembers the requests."""

    model = "fake-mllm"

    def __init__(self) -> None:
        self.gives: VerifyResult | Exception = reported(report())
        self.requests: list[VerifyRequest] = []

    def open(self) -> None: ...

    def close(self) -> None: ...

    def verify(self, request: VerifyRequest) -> VerifyResult:
        self.requests.append(request)
        return given(self.gives)  # type: ignore[no-any-return]  # as scripted


class FakedMllm:
    """An MllmStage and its fakes; original and panel are in the store."""

    def __init__(self, policy: Policy = POLICY, max_wait_s: float = math.inf, max_age_s: float = math.inf) -> None:
        self.verifier, self.store = FakeVerifier(), BreakableStore()
        bundle = replace(shipped_bundle(), policy=policy)
        self.stage = MllmStage(bundle, self.verifier, MEMORY, max_wait_s=max_wait_s, max_age_s=max_age_s)
        use_store(self.stage, self.store)
        self.store.put("acme", hashlib.sha256(DATA).hexdigest(), DATA)
        self.panel_uri, self.panel_sha256 = self.store.put_evidence("acme", PANEL_PNG, ".png")

    def process(self, item: Item[Any]) -> Outcome:
        (outcome,) = self.stage.process([item])
        return outcome


def only_record(outcome: Outcome, topic: Topic) -> Any:
    """The one record of an Emit, which must go to that topic under the item's key."""
    assert isinstance(outcome, Emit), outcome
    (output,) = outcome.outputs
    assert output.topic is topic, output
    assert output.key == f"{output.record.admission.tenant}/{output.record.admission.media_id}"  # type: ignore[attr-defined]
    return output.record


def decided(outcome: Outcome, verdict: Verdict) -> Decision:
    """The one decision of an Emit."""
    record = only_record(outcome, DECISION_TOPICS[verdict])
    assert isinstance(record, Decision)
    assert record.outcome is verdict
    return record
