"""The dialogue with a chat model about one image: examine freely, then report; one retry where the report fails."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import orjson
import structlog

from pipeline.detection.mllm.backends.base import VerifyRequest, VerifyResult
from pipeline.detection.mllm.chat import Capabilities, ChatAnswer, ChatFailed, ChatModel, ChatRequest, Message
from pipeline.detection.mllm.grounding import check_grounding
from pipeline.detection.mllm.images import Pictures, pictures
from pipeline.detection.mllm.prompt import PREFILL, Prompts, reason_question, report_question, retry_question
from pipeline.detection.mllm.report import ReportError, answer_schema, parse_report
from pipeline.detection.mllm.trace import Trace, Turn
from pipeline.detection.mllm.verdict import MllmCalibration, Opinion, opinion_of
from pipeline.media.errors import MediaError
from schemas.decision import ReasonCode
from schemas.forensics import ForensicReport

log = structlog.get_logger(__name__)

_SCHEMA = answer_schema()
_MAX_REFUSED_CHARS = 2000
"""Of a report that was not accepted, what the retry quotes: enough to correct, too little of an endless one."""

_CONTROL = re.compile(r"(<|\[)(?=\||/?(?:s|INST|SYS|image|img|(?:start|end)_of_\w+|[a-z_]+_token)[>\]])")
"""How chat templates write the ends and beginnings of turns: `<|...`, `</s>`, `[INST]`, `<start_of_turn>`."""

_LONGER = 2
"""The retry's budget over the first one's, where the first report was cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialogueSettings:
    """How a model is asked. `passes` 1: the report at once; 2: a free examination before it. Limits in tokens."""

    passes: Literal[1, 2] = 2
    reason_max_tokens: int = 768
    report_max_tokens: int = 1024
    crops: int = 0


def dialogue_sha256(prompts: Prompts, settings: DialogueSettings, able: Capabilities) -> str:
    """Digest of what decides how any image is asked about: prompts, settings, schema, and what is asked in words.

    A calibration holds for one such dialogue: with crops, or without a grammar, the same model says other things.
    """
    parts = {
        "prompts": prompts.sha256,
        "settings": asdict(settings),
        "schema": _SCHEMA,
        "guided_json": able.guided_json,
        "prefill": able.prefill and settings.passes == 2,
    }
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


class DialogueVerifier:
    """See Verifier. Thread-safe as its chat model is."""

    def __init__(
        self,
        chat: ChatModel,
        prompts: Prompts,
        settings: DialogueSettings | None = None,
        calibration: MllmCalibration | None = None,
        *,
        backend: str,
    ) -> None:
        """Opens nothing. `backend` names the kind of chat model in the trace."""
        self._chat = chat
        self._prompts = prompts
        self._settings = settings or DialogueSettings()
        self._calibration = calibration
        self._backend = backend
        self._unfitting: set[tuple[str, str]] = set()

    @property
    def model(self) -> str:
        """The chat model's."""
        return self._chat.model

    def open(self) -> None:
        """See Verifier."""
        self._chat.open()

    def close(self) -> None:
        """See Verifier."""
        self._chat.close()

    def verify(self, request: VerifyRequest) -> VerifyResult:
        """See Verifier. At most three turns: examination, report, one retry of the report."""
        started_s = time.monotonic()
        try:
            shown = pictures(request, self._settings.crops)
        except MediaError as error:
            detail = f"original: {error.detail}"
            return self._failed(error.code, detail, None, time.monotonic() - started_s)
        talk = _Talk(self._chat, self._prompts, self._settings, request, shown)
        try:
            report, answer = talk.report()
        except ChatFailed as error:
            return self._failed(error.code, error.detail, talk, time.monotonic() - started_s)
        except ReportError as error:
            return self._failed(ReasonCode.MLLM_INVALID_REPORT, error.detail, talk, time.monotonic() - started_s)
        opinion = self._calibrated(opinion_of(report, answer.tokens))
        return VerifyResult(
            report=report,
            opinion=opinion,
            model=self.model,
            trace=replace(self._trace(talk), report=report, opinion=opinion),
            duration_s=time.monotonic() - started_s,
        )

    def _failed(self, code: ReasonCode, detail: str, talk: _Talk | None, duration_s: float) -> VerifyResult:
        trace = replace(self._trace(talk), failure=code.value, detail=detail) if talk else None
        return VerifyResult(failure=code, detail=detail, model=self.model, trace=trace, duration_s=duration_s)

    def _calibrated(self, opinion: Opinion) -> Opinion:
        """After the bundle's map, if it was fitted for this model, these prompts and this kind of probability."""
        calibration = self._calibration
        if calibration is None or opinion.raw is None:
            return opinion
        if calibration.fits(self.model, self._dialogue_sha256(), opinion.basis):
            return opinion.mapped(calibration.map)
        asked = (self.model, opinion.basis.value)
        if asked not in self._unfitting:  # once for each, not once for each item
            self._unfitting.add(asked)
            log.warning("mllm_calibration_not_applied", fitted_for=calibration.model, model=self.model, basis=asked[1])
        return opinion

    def _dialogue_sha256(self) -> str:
        return dialogue_sha256(self._prompts, self._settings, self._chat.capabilities)

    def _trace(self, talk: _Talk) -> Trace:
        two = self._settings.passes == 2
        return Trace(
            model=self.model,
            backend=self._backend,
            capabilities=self._chat.capabilities,
            prompts={"version": self._prompts.version, **self._prompts.digests},
            dialogue_sha256=self._dialogue_sha256(),
            passes=self._settings.passes,
            prefill=PREFILL if two else "",
            images=talk.shown.sent(),
            turns=tuple(talk.turns),
        )


class _Talk:
    """One item's turns, in order."""

    def __init__(
        self, chat: ChatModel, prompts: Prompts, settings: DialogueSettings, request: VerifyRequest, shown: Pictures
    ) -> None:
        self._chat = chat
        self._prompts = prompts
        self._settings = settings
        self._request = request
        self.shown = shown
        self.turns: list[Turn] = []
        self._messages: list[Message] = []

    def report(self) -> tuple[ForensicReport, ChatAnswer]:
        """The accepted report and the answer that it was read from.

        Raises:
            ChatFailed, ServerUnavailable: see ChatModel.
            ReportError: the retry's report fails too.
        """
        answer = self._first_report()
        try:
            return self._accepted(answer), answer
        except ReportError as error:
            self._refuse(error.detail)
            longer = _LONGER if answer.finish == "length" else 1
            answer = self._ask(
                "retry",
                retry_question(error.detail),
                max_tokens=self._settings.report_max_tokens * longer,
                schema=_SCHEMA,
            )
        try:
            return self._accepted(answer), answer
        except ReportError as error:
            self._refuse(error.detail)
            raise

    def _first_report(self) -> ChatAnswer:
        opening = reason_question(self._prompts, self._request, self.shown)
        report = report_question(self._prompts)
        most = self._settings.report_max_tokens
        if self._settings.passes == 1:
            return self._ask("report", f"{opening}\n{report}", self.shown.pngs, max_tokens=most, schema=_SCHEMA)
        self._ask("reason", opening, self.shown.pngs, max_tokens=self._settings.reason_max_tokens, prefill=PREFILL)
        return self._ask("report", report, max_tokens=most, schema=_SCHEMA)

    def _ask(
        self,
        name: str,
        question: str,
        images: tuple[bytes, ...] = (),
        *,
        max_tokens: int,
        prefill: str = "",
        schema: Mapping[str, Any] | None = None,
    ) -> ChatAnswer:
        self._messages.append(Message("user", question, images))
        started_s = time.monotonic()
        try:
            answer = self._chat.chat(
                ChatRequest(messages=tuple(self._messages), max_tokens=max_tokens, prefill=prefill, schema=schema)
            )
        except ChatFailed as error:
            fault = f"{error.code.value}: {error.detail}"
            self.turns.append(Turn(name, question, error.raw_text, time.monotonic() - started_s, fault=fault))
            raise
        latency_s = time.monotonic() - started_s
        self.turns.append(
            Turn(
                name,
                question,
                answer.text,
                latency_s,
                finish=answer.finish,
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
            )
        )
        self._messages.append(Message("assistant", self._said(answer.text, prefill)))
        return answer

    def _said(self, text: str, prefill: str) -> str:
        """The model's turn as later turns quote it; no server takes an empty one."""
        prefilled = prefill and self._chat.capabilities.prefill
        return inert(prefill + text if prefilled else text).strip() or "(no answer)"

    def _accepted(self, answer: ChatAnswer) -> ForensicReport:
        if answer.finish == "length":
            raise ReportError("finish_reason: length; the report was cut off before its end")
        report = parse_report(answer.text)
        check_grounding(report, {feature.name for feature in self._request.features}, self.shown.shown_size)
        return report

    def _refuse(self, fault: str) -> None:
        self.turns[-1] = replace(self.turns[-1], fault=fault)
        said = self._messages[-1]
        self._messages[-1] = replace(said, text=said.text[:_MAX_REFUSED_CHARS])


def inert(text: str) -> str:
    """What the model wrote, with a space inside whatever a chat template could read as the end of its turn.

    It is quoted in the next question, and the model may have copied from the picture a text that would end its turn
    and begin one of the user's. A server's own template may know more such marks than these.
    """
    return _CONTROL.sub(r"\1 ", text)
