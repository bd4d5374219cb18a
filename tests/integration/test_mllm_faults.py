"""Every row of `docs/mllm-faults.md`: the worker's stage against a server that fails in that way."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from uuid import uuid4

import pytest
from PIL import Image

from pipeline.media.content_store import ContentStore
from pipeline.streaming.stage import Defer, DeferScope, Emit, GiveUpCause, Item, Outcome
from schemas.decision import Decision, ReasonCode
from schemas.decision import Outcome as Verdict
from schemas.media import AnomalousMedia
from tests.support.entries import item as plain_item
from tests.support.mllm_fault_server import MODEL, FaultServer, running, works
from tests.support.mllm_fault_table import FAULTS, OLD_S, PAGE, Fault, main, page
from tests.support.mllm_ports import held_port
from tests.support.records import anomalous
from tests.support.waiting import wait_until
from tests.support.worker_stages import MEMORY, shipped_bundle
from workers.mllm.limits import LimitedChatModel
from workers.mllm.settings import MllmSettings
from workers.mllm.stage import MllmStage
from workers.mllm.worker import make_verifier


def picture(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (96, 64), (colour, 120, 160)).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class Hand:
    """A clock that stands still until it is moved."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Rig:
    """A real stage over a real HTTP client. `clock`: that of the limits, which a slow machine does not move."""

    stage: MllmStage
    store: ContentStore
    server: FaultServer
    clock: Hand

    def item(self, age_s: float = 0.0, score: float = 0.99) -> Item[AnomalousMedia]:
        record = anomalous(uuid4().hex, self.store, picture(90), picture(30), score)
        return replace(plain_item(tenant="default", value=record), queued_at_s=time.time() - age_s)

    def process(self, item: Item[AnomalousMedia]) -> Outcome:
        (outcome,) = self.stage.process([item])
        return outcome


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def rig(fault: Fault, stack: ExitStack) -> tuple[Rig, int]:
    server = FaultServer(act=fault.act, **fault.server)
    port = stack.enter_context(held_port())
    if not fault.down:
        stack.enter_context(running(server, port))
    settings = MllmSettings.model_validate(
        {
            "backend": "openai",
            "openai": {
                "base_url": f"{fault.scheme}://127.0.0.1:{port}/v1",
                "model": MODEL,
                "timeout_s": fault.timeout_s,
            },
            "max_wait_s": OLD_S / 2.0,
        }
        | fault.settings
    )
    bundle, clock = shipped_bundle(), Hand()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workers.mllm.worker.LimitedChatModel", partial(LimitedChatModel, clock=clock))
        verifier = make_verifier(settings, bundle)
    stage = MllmStage(bundle, verifier, MEMORY, max_wait_s=settings.max_wait_s)
    stage.open()
    stack.callback(stage.close)
    return Rig(stage, stage._store, server, clock), port


def decision(outcome: Outcome) -> Decision:
    assert isinstance(outcome, Emit), outcome
    (output,) = outcome.outputs
    assert isinstance(output.record, Decision)
    return output.record


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.cause)
def test_a_fault_has_the_outcome_of_its_row(fault: Fault, stack: ExitStack) -> None:
    made, port = rig(fault, stack)
    for _ in range(fault.before):
        made.process(made.item())
    asked_before = len(made.server.asked)
    # Where the fault decides, scores that let an authentic image pass: nothing but the fault keeps it back.
    item = made.item(fault.age_s, 0.99 if fault.outcome == "decides" else 0.01)
    outcome = made.process(item)
    if fault.outcome == "wait":
        assert isinstance(outcome, Defer), outcome
        assert outcome.scope is DeferScope.DEPENDENCY
        assert outcome.retry_after_s >= fault.retry_after_s
        outcome = made.stage.fallback(item, GiveUpCause.DEPENDENCY_UNAVAILABLE, outcome.cause)
    found = decision(outcome)
    assert found.outcome is (Verdict.BLOCK if fault.outcome == "decides" else Verdict.ESCALATE)
    assert found.reasons[0].code is fault.reason
    assert fault.outcome == "decides" or found.reasons[0].detail, "a person is told why"
    # The client may have given up on a question that the server is about to take.
    wait_until(lambda: len(made.server.asked) - asked_before >= fault.questions, 10.0, "the row's questions came")
    assert len(made.server.asked) - asked_before == fault.questions
    if fault.heals:
        made.server.act = works
        if fault.down:
            stack.enter_context(running(made.server, port))
        decided_again(made)


def decided_again(made: Rig) -> None:
    """The next item, when the pause that it is told of is over.

    One that is answered later than the row's short `timeout_s` says nothing of the worker: it goes to people, and the
    next has to be decided.
    """
    found = wait_until(lambda: _answered_in_time(made), 60.0, "the worker goes on")
    assert found.reasons[0].code is ReasonCode.SYNTHETIC_CONFIRMED


def _answered_in_time(made: Rig) -> Decision | None:
    outcome = made.process(made.item())
    if isinstance(outcome, Defer):
        made.clock.now_s += outcome.retry_after_s
        return None
    found = decision(outcome)
    return None if found.reasons[0].code is ReasonCode.MLLM_TIMEOUT else found


def test_what_came_back_is_kept_also_when_it_was_not_accepted(stack: ExitStack) -> None:
    (fault,) = [f for f in FAULTS if f.cause == "the report is no JSON"]
    made, _ = rig(fault, stack)
    found = decision(made.process(made.item()))
    kinds = [evidence.kind for evidence in found.evidence]
    assert kinds == ["spectral_panel", "mllm_reason", "mllm_report", "mllm_retry", "mllm_trace", "manifest"]
    _, _, report, _, trace, _ = found.evidence
    assert made.store.get_evidence(report.uri, report.sha256) == b"It is fake."
    assert json.loads(made.store.get_evidence(trace.uri, trace.sha256))["failure"] == "mllm_invalid_report"


def test_without_log_probabilities_the_stated_confidence_counts_and_is_marked(stack: ExitStack) -> None:
    fault = next(f for f in FAULTS if f.server == {"logprobs": False})
    made, _ = rig(fault, stack)
    (score,) = [s for s in decision(made.process(made.item())).scores if s.stage == "mllm"]
    assert score.note is not None
    assert score.note.startswith("stated")


def test_each_row_is_one_of_a_kind() -> None:
    causes = [fault.cause for fault in FAULTS]
    assert len(set(causes)) == len(causes)


def test_the_page_is_of_this_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert PAGE.read_text() == page()
    assert main(["--check"]) == 0
    monkeypatch.setattr("tests.support.mllm_fault_table.FAULTS", FAULTS[1:])
    assert main(["--check"]) == 1
    assert "stale" in capsys.readouterr().err
