"""When not even the fail-closed decision can be made, because its evidence cannot be stored."""

from __future__ import annotations

from pipeline.streaming.plan import RunnerSettings
from pipeline.streaming.stage import Defer, DeferScope, GiveUpCause
from schemas.topics import Topic
from tests.support.streaming import Bench, HeldExecutor

DOWN = Defer(DeferScope.DEPENDENCY, "content store: disk full")


def test_an_item_given_up_without_a_store_waits_anew_and_moves_nothing() -> None:
    bench = Bench(settings=RunnerSettings(dependency_max_age_s=5.0, backoff_max_s=0.5))
    bench.stage.script["a"].extend([DOWN] * 1000)
    bench.fallback_script.extend([DOWN] * 3)
    bench.publish("a", "b")
    bench.turn(120)
    assert 1 <= len(bench.fallbacks) <= 3
    assert (bench.out(Topic.ESCALATE), bench.out(Topic.SUSPECT), bench.committed) == ([], [], 0)


def test_once_the_store_is_back_the_stage_decides() -> None:
    bench = Bench(settings=RunnerSettings(dependency_max_age_s=5.0, backoff_max_s=0.5))
    bench.stage.script["a"].extend([DOWN] * 8)
    bench.fallback_script.extend([DOWN] * 10)
    bench.publish("a")
    bench.turn(300)
    assert len(bench.stage.seen) == 9
    assert bench.out(Topic.SUSPECT) == ["a"]
    assert bench.committed == 1


def test_an_item_that_kills_its_process_is_not_given_up_without_evidence() -> None:
    executor = HeldExecutor()
    bench = Bench(executor=executor, settings=RunnerSettings(backoff_first_s=0.2, backoff_max_s=0.2))
    bench.fallback_script.append(DOWN)
    bench.publish("poison")
    for _ in range(2):
        bench.turn(4)
        executor.crash("poison")
    bench.turn(1)
    assert [cause for _, cause, _ in bench.fallbacks] == [GiveUpCause.ANALYSIS_CRASH]
    assert bench.out(Topic.ESCALATE) == []
    bench.turn(4)
    executor.crash("poison")
    bench.turn(3)
    assert bench.out(Topic.ESCALATE) == ["poison"]
    assert bench.committed == 1
