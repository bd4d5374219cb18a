"""Tier 1: fetch once, decode in a sandbox, classify in shared batches, let clearly real media go.

`process` handles its items one after another; concurrency comes from the executor's slots, and the model sees
batches across all of them. So a slow origin holds one slot, never a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import structlog

from pipeline.detection.bundle import Bundle
from pipeline.detection.classifier.classifier import Classifier
from pipeline.detection.classifier.preprocess import CropSpec, Pixels, crops
from pipeline.detection.shadow_settings import ShadowSettings
from pipeline.evidence.manifest import ORIGINAL
from pipeline.guarded_process import Limits
from pipeline.media.content_store import open_store
from pipeline.media.decode import DecodeLimits, decode_image
from pipeline.media.errors import FetchDeferred, FetchRejected, HostBusy, MediaError, StoreUnavailable
from pipeline.media.fetch import Fetched, Fetcher
from pipeline.media.sandbox import DecodeSandbox
from pipeline.media.store_settings import StoreSettings
from pipeline.media.uploaded import is_uploaded, read_uploaded
from pipeline.streaming.stage import Defer, DeferScope, Emit, GiveUpCause, Item, Outcome, Output, Reject
from pipeline.streaming.steps import step, with_steps
from schemas.deadletter import RejectCode
from schemas.decision import ReasonCode, Risk
from schemas.media import EvidenceRef, MediaFacts, MediaReference, StageScore, SuspectMedia
from schemas.topics import Topic
from schemas.types import Priority, StageName
from workers.classifier.admission import admit, refused_tenant
from workers.classifier.settings import ClassifierSettings
from workers.classifier.shadow import ClassifierShadow
from workers.verdicts import CaseFile, Stopwatch, Verdicts, expired, reason

STAGE = StageName.CLASSIFIER

log = structlog.get_logger("mediasieve")


@dataclass(frozen=True, slots=True)
class Decoded:
    """What crosses back from the sandbox: the model's input, not the image.

    `shadow_crops`: where the shadow's model looks at other squares. `shadow_error`: why they could not be cut.
    """

    crops: Pixels
    facts: MediaFacts
    shadow_crops: Pixels | None = None
    shadow_error: str = ""


class ClassifierStage:
    """See Stage. Thread-safe."""

    def __init__(
        self,
        bundle: Bundle,
        settings: ClassifierSettings,
        store: StoreSettings,
        shadow: ShadowSettings | None = None,
    ) -> None:
        """Opens the store and nothing else; raises what `open_store` and `ClassifierShadow` do."""
        self._bundle = bundle
        self._settings = settings
        self._store = open_store(store)
        self._shadow = ClassifierShadow(shadow or ShadowSettings(), bundle, settings)
        self._verdicts = Verdicts(STAGE, bundle.policy, self._store, self._shadow.rules)
        self._store_failed = False
        self._fetcher = Fetcher(settings.fetch)
        self._classifier = Classifier(bundle, settings.backend, settings.batching)
        sandbox = settings.sandbox
        self._sandbox: DecodeSandbox[Decoded] = DecodeSandbox(
            partial(_make_decoder, settings.decode, self._classifier.crop_spec, self._shadow.crop_spec),
            workers=sandbox.workers,
            limits=Limits(sandbox.memory_bytes, sandbox.cpu_s, no_new_files=True),
            timeout_s=sandbox.timeout_s,
        )

    def open(self) -> None:
        """See Stage."""
        self._sandbox.open()
        self._classifier.open()
        self._shadow.open()
        self._fetcher.open()

    def process(self, batch: Sequence[Item[MediaReference]]) -> Sequence[Outcome]:
        """See Stage."""
        return [with_steps(self._admit, item) for item in batch]

    def close(self) -> None:
        """See Stage."""
        self._fetcher.close()
        self._shadow.close()
        self._classifier.close()
        self._sandbox.close()

    def fallback(self, item: Item[MediaReference], cause: GiveUpCause, detail: str) -> Outcome:
        """See Fallback."""
        case = CaseFile(admit(item, None, self._bundle, self._settings))
        return self._verdicts.given_up(case, [reason(ReasonCode(cause.value), detail)])

    def _admit(self, item: Item[MediaReference]) -> Outcome:
        refused = refused_tenant(item, self._settings)
        if refused:
            return Reject(RejectCode.TENANT_REFUSED, refused)
        outcome = self._one(item)
        if isinstance(outcome, Defer) and outcome.scope is DeferScope.DEPENDENCY:
            self._store_failed = True
        return outcome

    def _one(self, item: Item[MediaReference]) -> Outcome:
        watch = Stopwatch(STAGE, item)
        unfetched = CaseFile(admit(item, None, self._bundle, self._settings))
        if expired(unfetched.admission):
            case = unfetched.timed(watch.stop())
            why = reason(ReasonCode.EXPIRED, f"expires_at was {item.value.expires_at}")
            return self._verdicts.escalated(case, [why])
        try:
            self._require_store()
            with step("fetch"):
                fetched = self._fetch(item)
        except FetchRejected as error:
            return Reject(error.code, error.detail)
        except FetchDeferred as error:
            return Defer(DeferScope.ITEM, error.cause, error.retry_after_s, asked=not isinstance(error, HostBusy))
        except MediaError as error:
            case = unfetched.timed(watch.stop())
            return self._verdicts.escalated(case, [reason(error.code, error.detail)])
        except StoreUnavailable as error:
            return Defer(DeferScope.DEPENDENCY, f"content store: {error}")
        return self._store_or_defer(item, fetched, watch)

    def _fetch(self, item: Item[MediaReference]) -> Fetched:
        if is_uploaded(item.value.uri):
            return read_uploaded(self._store, item.tenant, item.value, self._settings.fetch.max_bytes)
        return self._fetcher.fetch(item.value, item.attempt)

    def _store_or_defer(self, item: Item[MediaReference], fetched: Fetched, watch: Stopwatch) -> Outcome:
        try:
            return self._analyse(item, fetched, watch)
        except StoreUnavailable as error:
            return Defer(DeferScope.DEPENDENCY, f"content store: {error}")

    def _require_store(self) -> None:
        """After a failure, ask the store before the producer's origin: nothing is fetched only to be thrown away."""
        if self._store_failed:
            self._store.probe()
            self._store_failed = False

    def _analyse(self, item: Item[MediaReference], fetched: Fetched, watch: Stopwatch) -> Outcome:
        admission = admit(item, fetched.sha256, self._bundle, self._settings)
        declared = item.value.content_type or fetched.content_type
        try:
            with step("decode"):
                decoded = self._sandbox.call(fetched.data, declared)
        except MediaError as error:
            case = CaseFile(admission, timings=(watch.stop(),), evidence=(self._keep(item.tenant, fetched),))
            return self._verdicts.escalated(case, [reason(error.code, error.detail)])
        with step("infer"):
            score = self._classifier.score(decoded.crops)
        scores = (
            StageScore(stage=STAGE, score=score, bundle_version=self._bundle.version, model=self._classifier.model),
        )
        timing = watch.stop()
        squares = decoded.crops if decoded.shadow_crops is None else decoded.shadow_crops
        trail = self._shadow.trail(admission, squares, decoded.shadow_error)
        policy = self._bundle.policy
        if policy.stage1_exit(score):
            case = CaseFile(admission, decoded.facts, scores, (timing,), final_score=score, shadow=trail)
            detail = f"classifier {score:.3f} < T1 {policy.thresholds.t1}"
            passed = self._verdicts.released(case, Risk.RELEASED, ReasonCode.SCORE_BELOW_T1, detail)
            return self._sampled(passed, case, fetched)
        self._keep(item.tenant, fetched)
        suspect = SuspectMedia(admission=admission, facts=decoded.facts, scores=scores, timings=(timing,), shadow=trail)
        first = policy.priority_lane(score) or admission.priority is Priority.HIGH
        topic = Topic.SUSPECT_PRIORITY if first else Topic.SUSPECT
        return Emit((Output(topic, CaseFile(admission).key, suspect),))

    def _sampled(self, passed: Emit | Defer, case: CaseFile, fetched: Fetched) -> Outcome:
        """The pass as ever; beside it, where the draw says so, the same media for the later stages.

        On the normal lane whatever its priority, so that it takes nobody's turn. A pass needs no store, so without one
        it goes out unsampled.
        """
        draw = self._settings.audit_sample.draw(case.admission.decision_uid)
        if draw is None or case.facts is None or not isinstance(passed, Emit):
            return passed
        try:
            self._verdicts.note_sample(case)
            self._keep(case.admission.tenant, fetched)
        except StoreUnavailable as error:
            log.warning("audit_sample_skipped", media_id=case.admission.media_id, detail=str(error))
            return passed
        sample = SuspectMedia(
            admission=case.admission, facts=case.facts, scores=case.scores, timings=case.timings, audit=draw
        )
        return replace(passed, outputs=(*passed.outputs, Output(Topic.SUSPECT, case.key, sample)))

    def _keep(self, tenant: str, fetched: Fetched) -> EvidenceRef:
        """The original bytes, for the later stages and for people, before anything is committed."""
        with step("store"):
            uri = self._store.put(tenant, fetched.sha256, fetched.data)
        return EvidenceRef(kind=ORIGINAL, uri=uri, sha256=fetched.sha256)


def _make_decoder(limits: DecodeLimits, spec: CropSpec, shadow_spec: CropSpec | None = None) -> _Decoder:
    """Runs in the sandbox's child; warms up so that no file need be opened later."""
    decoder = _Decoder(limits, spec, None if shadow_spec == spec else shadow_spec)
    decoder.warm_up()
    return decoder


@dataclass(frozen=True, slots=True)
class _Decoder:
    limits: DecodeLimits
    spec: CropSpec
    shadow_spec: CropSpec | None = None

    def __call__(self, data: bytes, declared: str | None) -> Decoded:
        image = decode_image(data, self.limits, declared)
        decoded = Decoded(crops(image.rgb, self.spec), image.facts)
        if self.shadow_spec is None:
            return decoded
        try:
            return replace(decoded, shadow_crops=crops(image.rgb, self.shadow_spec))
        except Exception as error:  # whatever it is, it must not touch the live decision
            return replace(decoded, shadow_error=f"{type(error).__name__}: {error}"[:256])

    def warm_up(self) -> None:
        """Touch every decoder once: Pillow loads its plugins lazily, and the sandbox can open no file later."""
        from io import BytesIO  # noqa: PLC0415 - only the child needs it

        from PIL import Image  # noqa: PLC0415 - likewise

        for name in ("PNG", "JPEG", "WEBP", "TIFF", "BMP"):
            buffer = BytesIO()
            Image.new("RGB", (16, 16), (90, 120, 200)).save(buffer, name)
            self(buffer.getvalue(), None)
