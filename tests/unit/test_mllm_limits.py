"""Circuit breaker, token budget and cap around a chat model, by a clock that the test turns."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.detection.mllm.chat import ChatAnswer, ChatFailed, ChatRequest, ServerUnavailable
from schemas.decision import ReasonCode
from tests.support.scripted_chat import ScriptedChat, answer, question
from workers.mllm.breaker import NotAsked
from workers.mllm.limits import GatedVerifier, LimitedChatModel, LimitSettings


@dataclass
class Hand:
    """A clock that stands still until it is moved."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Rig:
    """A limited model over a scripted one."""

    def __init__(self, in_flight: int = 8, **settings: Any) -> None:
        self.clock = Hand()
        self.chat = ScriptedChat()
        self.limited = LimitedChatModel(self.chat, LimitSettings(**settings), in_flight, self.clock)

    def down(self, retry_after_s: float = 0.0) -> None:
        self.raises(ServerUnavailable("HTTP 503", retry_after_s))

    def raises(self, error: Exception) -> None:
        def says(_: ChatRequest) -> ChatAnswer:
            raise error

        self.chat.says = says

    def states(self) -> dict[str, float]:
        return {r.labels[0]: r.value for r in self.limited.readings() if r.name == "mediasieve_mllm_circuit"}

    def up(self, tokens: int = 0) -> None:
        self.chat.says = lambda _: answer(tokens)

    def fail(self, times: int, kind: type[Exception] = ServerUnavailable) -> None:
        for _ in range(times):
            with pytest.raises(kind) as caught:
                self.limited.chat(question())
            assert not isinstance(caught.value, NotAsked)

    def refused(self) -> NotAsked:
        before = len(self.chat.asked)
        with pytest.raises(NotAsked) as caught:
            self.limited.chat(question())
        assert len(self.chat.asked) == before
        assert self.limited.refusal() is not None
        return caught.value


def test_the_circuit_opens_after_so_many_failures_in_a_row_and_asks_nothing() -> None:
    rig = Rig(failures=3, open_s=10.0)
    rig.down()
    rig.fail(3)
    assert rig.refused().retry_after_s == pytest.approx(10.0)
    rig.clock.now_s += 4.0
    error = rig.refused()
    assert error.retry_after_s == pytest.approx(6.0)
    assert "HTTP 503" in str(error)


def test_a_success_between_starts_the_count_anew() -> None:
    rig = Rig(failures=2)
    for _ in range(5):
        rig.down()
        rig.fail(1)
        rig.up()
        rig.limited.chat(question())
    assert rig.limited.refusal() is None


@pytest.mark.parametrize(
    ("error", "waits_as"),
    [
        (ServerUnavailable("why"), ReasonCode.MLLM_UNAVAILABLE),
        (ServerUnavailable("why", 0.0, ReasonCode.MLLM_OVERLOADED), ReasonCode.MLLM_OVERLOADED),
        (ChatFailed(ReasonCode.MLLM_UNAVAILABLE, "why"), ReasonCode.MLLM_UNAVAILABLE),
        (ChatFailed(ReasonCode.MLLM_TIMEOUT, "why"), ReasonCode.MLLM_OVERLOADED),
    ],
    ids=["refused connections", "429", "HTTP 500", "time-outs"],
)
def test_an_open_circuit_says_which_trouble_opened_it(error: Exception, waits_as: ReasonCode) -> None:
    rig = Rig(failures=2)
    rig.raises(error)
    rig.fail(2, type(error))
    refused = rig.refused()
    assert "why" in str(refused)
    assert refused.code is waits_as


@pytest.mark.parametrize("code", [ReasonCode.MLLM_REFUSED, ReasonCode.MLLM_INVALID_REPORT])
def test_a_bad_answer_is_an_answer(code: ReasonCode) -> None:
    rig = Rig(failures=2)
    rig.raises(ChatFailed(code, "why"))
    rig.fail(9, ChatFailed)
    assert rig.limited.refusal() is None


def test_one_probe_closes_it_again() -> None:
    rig = Rig(failures=1, open_s=10.0)
    rig.down()
    rig.fail(1)
    rig.clock.now_s += 10.0
    rig.up()
    assert rig.limited.refusal() is None
    rig.limited.chat(question())
    rig.limited.chat(question())
    assert len(rig.chat.asked) == 3


def test_a_probe_that_fails_opens_it_for_as_long_again() -> None:
    rig = Rig(failures=3, open_s=10.0)
    rig.down()
    rig.fail(3)
    rig.clock.now_s += 10.0
    rig.fail(1)
    assert rig.refused().retry_after_s == pytest.approx(10.0)


def test_only_one_thread_probes() -> None:
    rig = Rig(failures=1, open_s=10.0)
    rig.down()
    rig.fail(1)
    rig.clock.now_s += 10.0
    probing, go_on = threading.Event(), threading.Event()

    def slow(_: ChatRequest) -> ChatAnswer:
        probing.set()
        assert go_on.wait(30)
        return answer()

    rig.chat.says = slow
    with ThreadPoolExecutor(1) as pool:
        probe = pool.submit(rig.limited.chat, question())
        assert probing.wait(30)
        assert "probe" in str(rig.refused())
        go_on.set()
        probe.result(30)
    assert rig.limited.refusal() is None


def test_a_bug_in_the_probe_leaves_another_probe_free() -> None:
    rig = Rig(failures=1, open_s=10.0)
    rig.down()
    rig.fail(1)
    rig.clock.now_s += 10.0
    rig.raises(KeyError("bug"))
    with pytest.raises(KeyError):
        rig.limited.chat(question())
    rig.up()
    rig.limited.chat(question())
    assert rig.limited.refusal() is None


def test_a_late_success_of_before_does_not_close_it() -> None:
    rig = Rig(failures=1, open_s=10.0)
    asked, go_on = threading.Event(), threading.Event()

    def slow(_: ChatRequest) -> ChatAnswer:
        asked.set()
        assert go_on.wait(30)
        return answer()

    rig.chat.says = slow
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(rig.limited.chat, question())
        assert asked.wait(30)
        rig.down()
        rig.fail(1)
        go_on.set()
        late.result(30)
    rig.refused()


def test_what_the_server_asks_for_is_waited_for_at_once() -> None:
    rig = Rig(failures=5, open_s=10.0)
    rig.down(retry_after_s=42.0)
    rig.fail(1)
    assert rig.refused().retry_after_s == pytest.approx(42.0)
    rig.clock.now_s += 42.0
    rig.up()
    rig.limited.chat(question())
    assert rig.limited.refusal() is None


def test_the_budget_is_what_answers_cost_and_fills_with_time() -> None:
    rig = Rig(tokens_per_minute=6000)
    rig.up(tokens=2500)
    for _ in range(3):
        rig.limited.chat(question())
    # 7,500 of 6,000 spent: 100 a second fill it, so that after 15 s nothing is owed.
    assert rig.refused().retry_after_s == pytest.approx(15.0, abs=0.1)
    rig.clock.now_s += 14.9
    rig.refused()
    rig.clock.now_s += 0.2
    rig.limited.chat(question())


def test_the_budget_holds_no_more_than_a_minute() -> None:
    rig = Rig(tokens_per_minute=1000)
    rig.clock.now_s += 3600.0
    rig.up(tokens=1001)
    rig.limited.chat(question())
    rig.refused()


def test_a_dialogue_that_was_begun_is_finished() -> None:
    rig = Rig(tokens_per_minute=1000)
    rig.up(tokens=3000)
    rig.limited.chat(question())
    rig.refused()
    rig.limited.chat(question(begun=True))
    assert rig.refused().retry_after_s == pytest.approx(60.0 * 5.0, abs=1.0)


def test_a_server_that_took_no_work_costs_nothing() -> None:
    rig = Rig(tokens_per_minute=1000, failures=1000)
    rig.down()
    for _ in range(50):
        with pytest.raises(ServerUnavailable):
            rig.limited.chat(question(max_tokens=900))
    assert rig.limited.refusal() is None


def test_where_nothing_is_counted_the_reservation_stands() -> None:
    rig = Rig(tokens_per_minute=1000)
    rig.up(tokens=0)
    rig.limited.chat(question(max_tokens=600))
    rig.limited.chat(question(max_tokens=600))
    rig.refused()


def test_no_more_than_the_cap_are_at_the_server() -> None:
    rig = Rig(in_flight=2)
    lock, here, most = threading.Lock(), [0], [0]
    meeting = threading.Barrier(2, timeout=30)

    def says(_: ChatRequest) -> ChatAnswer:
        with lock:
            here[0] += 1
            most[0] = max(most[0], here[0])
        meeting.wait()
        with lock:
            here[0] -= 1
        return answer()

    rig.chat.says = says
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: rig.limited.chat(question()), range(6)))
    assert most[0] == 2
    assert len(rig.chat.asked) == 6


def test_the_rest_is_the_models_own() -> None:
    rig = Rig()
    rig.limited.open()
    rig.limited.close()
    assert rig.chat.calls == ["open", "close"]
    assert rig.limited.model == rig.chat.model
    assert rig.limited.capabilities is rig.chat.capabilities


def test_a_gated_verifier_prepares_nothing_while_the_circuit_is_open() -> None:
    rig = Rig(failures=1)
    rig.down()
    rig.fail(1)
    asked: list[object] = []

    class Verifier:
        model = "v"
        open = close = staticmethod(lambda: None)

        def verify(self, request: object) -> None:
            asked.append(request)

    gated = GatedVerifier(Verifier(), rig.limited)  # type: ignore[arg-type]  # it makes no result
    with pytest.raises(NotAsked):
        gated.verify(object())  # type: ignore[arg-type]
    rig.clock.now_s += 1000.0
    gated.verify(object())  # type: ignore[arg-type]
    assert len(asked) == 1


def test_readings_say_the_circuits_state_as_a_request_would_find_it() -> None:
    rig = Rig(failures=2, open_s=10.0)
    assert rig.states() == {"closed": 1.0, "open": 0.0, "half_open": 0.0}
    rig.down()
    rig.fail(2)
    assert rig.states() == {"closed": 0.0, "open": 1.0, "half_open": 0.0}
    rig.clock.now_s += 10.0
    assert rig.states() == {"closed": 0.0, "open": 0.0, "half_open": 1.0}


def test_readings_say_what_is_left_of_the_budget_and_nothing_without_one() -> None:
    assert not [r for r in Rig().limited.readings() if r.name == "mediasieve_mllm_budget_tokens"]
    rig = Rig(tokens_per_minute=6000)
    rig.up(7000)
    rig.limited.chat(question())
    found = {r.labels[0]: r.value for r in rig.limited.readings() if r.name == "mediasieve_mllm_budget_tokens"}
    assert found == {"left": -1000.0, "per_minute": 6000.0}
