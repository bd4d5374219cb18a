from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from pipeline.media.errors import FetchDeferred, FetchRejected
from pipeline.media.hosts import Hosts, HostSettings
from schemas.deadletter import RejectCode

HOST = "a.example:443"


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, **settings: float) -> Hosts:
    return Hosts(HostSettings.model_validate({"busy_wait_s": 0.0, **settings}), clock)


def succeed(hosts: Hosts, host: str = HOST, attempt: int = 1) -> None:
    with hosts.visit(host, attempt) as visit:
        visit.answered = True


def fail(hosts: Hosts, host: str = HOST, attempt: int = 1) -> None:
    with pytest.raises(FetchDeferred, match="timed out"), hosts.visit(host, attempt):
        raise FetchDeferred("timed out", host)


def refused(hosts: Hosts, attempt: int, why: str) -> None:
    with pytest.raises(FetchDeferred, match=why), hosts.visit(HOST, attempt):
        pytest.fail("the visit was let in")


def hold(hosts: Hosts, stack: ExitStack, count: int, attempt: int = 1) -> None:
    for _ in range(count):
        stack.enter_context(hosts.visit(HOST, attempt))


def test_a_new_host_gets_two_slots_and_its_full_share_after_a_success(clock: Clock) -> None:
    hosts = make(clock, max_concurrent=4)
    with ExitStack() as stack:
        hold(hosts, stack, 2)
        refused(hosts, 1, "host busy")
    succeed(hosts)
    with ExitStack() as stack:
        hold(hosts, stack, 4)
        refused(hosts, 1, "host busy")


def test_a_failure_takes_a_proven_host_back_to_two_slots(clock: Clock) -> None:
    hosts = make(clock)
    succeed(hosts)
    fail(hosts)
    with ExitStack() as stack:
        hold(hosts, stack, 2)
        refused(hosts, 1, "host busy")


def test_later_attempts_have_slots_of_their_own(clock: Clock) -> None:
    hosts = make(clock, max_concurrent_retry=1)
    with ExitStack() as stack:
        hold(hosts, stack, 2)
        hold(hosts, stack, 1, attempt=2)
        refused(hosts, 2, "host busy")


def test_slots_come_back(clock: Clock) -> None:
    hosts = make(clock)
    for _ in range(10):
        succeed(hosts)


def test_hosts_do_not_share_slots(clock: Clock) -> None:
    hosts = make(clock)
    with ExitStack() as stack:
        hold(hosts, stack, 2)
        succeed(hosts, "b.example:443")


def test_three_failures_in_a_row_open_the_breaker_for_first_attempts(clock: Clock) -> None:
    hosts = make(clock)
    fail(hosts)
    fail(hosts)
    succeed(hosts)
    for _ in range(3):
        fail(hosts)
    clock.now_s += 60.0
    refused(hosts, 1, "circuit open")


def test_only_a_later_attempt_probes_and_only_after_the_cool_down(clock: Clock) -> None:
    hosts = make(clock, cool_down_s=5.0)
    for _ in range(3):
        fail(hosts)
    refused(hosts, 2, "circuit open")
    clock.now_s += 5.0
    refused(hosts, 1, "circuit open")
    succeed(hosts, attempt=2)
    succeed(hosts, attempt=1)


def test_one_probe_at_a_time_and_a_failed_one_starts_the_cool_down_anew(clock: Clock) -> None:
    hosts = make(clock, cool_down_s=5.0)
    for _ in range(3):
        fail(hosts)
    clock.now_s += 5.0

    def probe() -> None:
        with hosts.visit(HOST, 2):
            refused(hosts, 3, "host busy")
            raise FetchDeferred("still dead", HOST)

    with pytest.raises(FetchDeferred, match="still dead"):
        probe()
    clock.now_s += 4.9
    refused(hosts, 2, "circuit open")
    clock.now_s += 0.2
    succeed(hosts, attempt=2)


def test_a_breaker_that_nobody_probes_is_forgotten(clock: Clock) -> None:
    hosts = make(clock, forget_after_s=600.0)
    for _ in range(3):
        fail(hosts)
    clock.now_s += 599.0
    refused(hosts, 1, "circuit open")
    clock.now_s += 1.0
    succeed(hosts)


def reject(hosts: Hosts, answered: bool) -> None:
    with hosts.visit(HOST, 1) as visit:
        visit.answered = answered
        raise FetchRejected(RejectCode.SOURCE_GONE, "404")


def test_a_rejection_with_an_answer_is_a_success(clock: Clock) -> None:
    hosts = make(clock)
    for _ in range(4):
        fail(hosts)
        with pytest.raises(FetchRejected):
            reject(hosts, answered=True)


def test_a_rejection_without_an_answer_says_nothing(clock: Clock) -> None:
    hosts = make(clock)
    fail(hosts)
    fail(hosts)
    with pytest.raises(FetchRejected):
        reject(hosts, answered=False)
    fail(hosts)
    refused(hosts, 1, "circuit open")


def test_the_hosts_remembered_are_bounded_and_the_busy_ones_stay(clock: Clock) -> None:
    hosts = make(clock, max_hosts=3)
    with hosts.visit(HOST, 1):
        for number in range(20):
            succeed(hosts, f"{number}.example:443")
        assert len(hosts) == 3
    succeed(hosts)


def test_a_waiter_gets_the_slot_that_becomes_free(clock: Clock) -> None:
    hosts = make(clock, max_concurrent=1, busy_wait_s=0.25)  # the clock stands still: the wait ends with the slot alone
    entered, leave = threading.Event(), threading.Event()

    def holder() -> None:
        with hosts.visit(HOST, 1) as visit:
            visit.answered = True
            entered.set()
            leave.wait(10.0)

    thread = threading.Thread(target=holder)
    thread.start()
    assert entered.wait(10.0)
    threading.Timer(0.02, leave.set).start()
    succeed(hosts)
    thread.join()


def test_nobody_waits_for_an_unproven_host_whose_oldest_call_is_old(clock: Clock) -> None:
    hosts = make(clock, busy_wait_s=0.25)
    with ExitStack() as stack:
        hold(hosts, stack, 2)
        clock.now_s += 0.3
        refused(hosts, 1, "host busy")
