"""The simulation against laws that hold for any queue, and closed forms of the simplest."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.capacity.distribution import Distribution
from pipeline.capacity.profile import Profile, Visits
from pipeline.capacity.queueing import wait
from pipeline.capacity.simulation.cascade import Cascade, simulate
from pipeline.capacity.simulation.scenario import (
    RETRY_LANES,
    Burst,
    LaneModel,
    Membership,
    NodeLoss,
    ScalerSettings,
    Scenario,
    Slowdown,
    StageModel,
)
from pipeline.capacity.sizing import Request, size
from pipeline.capacity.stories import everyday

LANES = (LaneModel("priority", weight=8), LaneModel("normal", max_age_s=30.0))
FIRST = StageModel(
    "first", Distribution.exponential(0.2), 0.5, 8, 2.0, 6, 2, (LaneModel("main", slots=8), *RETRY_LANES),
    transport_s=0.01, commit_interval_s=0.05, commit_s=0.01,
)  # fmt: skip
SECOND = StageModel("second", Distribution.exponential(0.1), 1.0, 2, 2.0, 6, 1, LANES, batch_items=3, batch_wait_s=0.05)
THIRD = StageModel("third", Distribution.exponential(2.0), 0.0, 4, 1.0, 6, 1, LANES, commit_interval_s=0.05)


def cascade(seed, **changes):
    base = Scenario((FIRST, SECOND, THIRD), (1.0, 0.4, 0.1), 8.0, 400.0, seed, priority_share=0.3)
    return replace(base, **changes)


def single(servers, rate, seed, *, seconds=20_000.0, on_cores=False, replicas=1):
    """One queue; commits cost nothing, and what is behind another is not held up by it where waits are compared."""
    worked = Distribution.exponential(1.0)
    stage = (
        StageModel("s", worked, 1.0, 10_000, float(servers), 1, 1)
        if on_cores
        else StageModel("s", worked, 0.0, servers, 1.0, max(1, replicas), replicas)
    )
    return Scenario((stage,), (1.0,), rate, seconds, seed, warm_up_s=200.0)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    retry=st.sampled_from([0.0, 0.3]),
    lost=st.booleans(),
    eager=st.booleans(),
    scaled=st.booleans(),
)
def test_nothing_is_lost_or_doubled_whatever_happens(seed, retry, lost, eager, scaled):
    run = Cascade(
        cascade(
            seed,
            retry_share=retry,
            membership=Membership(eager=eager, replace_s=60.0),
            scalers={"first": ScalerSettings(40), "third": ScalerSettings(8)} if scaled else {},
            bursts=(Burst(60.0, 90.0, 5.0),),
            slowdowns=(Slowdown("third", 100.0, 150.0, 3.0),),
            losses=(NodeLoss("first", 120.0, 1), NodeLoss("third", 130.0, 1)) if lost else (),
        )
    )
    result = run.run()
    held = sum(group.in_system for group in run.groups)
    committing = run.in_system - held  # taken from its partition, and not yet visible
    assert result.born == result.decided + result.dead + run.in_system
    assert 0 <= committing <= 100
    assert result.decided > 0


def test_equal_scenarios_give_equal_runs():
    assert simulate(cascade(5)) == simulate(cascade(5))


@pytest.mark.parametrize(("servers", "rate"), [(1, 0.7), (3, 2.2)])
def test_waits_are_those_of_the_closed_form(servers, rate):
    found = np.array([simulate(single(servers, rate, seed)).wait_s("s") for seed in range(4)])
    expected = wait(rate, 1.0, 1.0, servers).mean_s
    assert found.mean() == pytest.approx(expected, rel=0.12)


def test_each_of_two_replicas_has_half_of_the_keys_and_a_queue_of_its_own():
    """Keys are hashed: two members are two queues with Poisson arrivals, neither one queue nor arrivals in turn."""
    found = np.array([simulate(single(1, 1.4, seed, replicas=2)).wait_s("s") for seed in range(4)])
    assert found.mean() == pytest.approx(wait(0.7, 1.0, 1.0, 1).mean_s, rel=0.12)


def test_cores_are_a_queue_with_as_many_servers():
    found = np.mean([simulate(single(1, 0.7, seed, on_cores=True)).latency_s() for seed in range(4)])
    assert found >= wait(0.7, 1.0, 1.0, 1).mean_s + 1.0 - 0.35
    assert found == pytest.approx(wait(0.7, 1.0, 1.0, 1).mean_s + 1.0, rel=0.12)


def test_littles_law():
    result = simulate(cascade(3, seconds=4000.0, warm_up_s=400.0))
    in_system = result.area / result.window_s
    assert in_system == pytest.approx(result.throughput_per_s * result.latency_s(), rel=0.03)


def test_more_replicas_never_wait_longer_on_average():
    means = [
        np.mean([simulate(single(1, 1.6, seed, seconds=2000.0, replicas=n)).in_system[-1] for seed in range(6)])
        for n in (1, 2, 4)
    ]
    assert means[0] > means[1] > means[2]


def test_above_saturation_the_backlog_grows_by_what_is_too_much():
    result = simulate(single(2, 3.0, 1, seconds=4000.0))
    assert result.growth_per_s == pytest.approx(1.0, abs=0.15)
    assert result.throughput_per_s == pytest.approx(2.0, abs=0.1)


def test_a_lost_node_is_noticed_and_replaced_and_its_work_begun_again():
    stages = (replace(FIRST, replicas=2), SECOND, THIRD)
    noticed = Membership(session_timeout_s=45.0, replace_s=100.0)
    scenario = cascade(2, stages=stages, losses=(NodeLoss("first", 100.0, 1),), membership=noticed)
    result = simulate(scenario)
    working = dict(zip(result.times_s, result.stages["first"].working, strict=True))
    lag_s = dict(zip(result.times_s, result.stages["first"].lag_s, strict=True))
    assert (working[99.0], working[101.0], working[399.0]) == (2, 1, 2)
    assert lag_s[140.0] > 35.0 > lag_s[399.0]
    assert sum(simulate(replace(scenario, seconds=160.0, seed=seed)).redone for seed in range(5)) > 0


def test_the_formula_does_not_promise_what_the_simulation_of_the_same_fleet_breaks():
    request = Request(rate_per_s=60.0, visits=Visits(spectral=0.1, mllm=0.02), sla_s=60.0)
    profile = Profile.load()
    fixed = everyday(request, profile, seconds=900.0, seed=1, priority_share=0.2, poll_s=0.0, scaled=False)
    found = [simulate(replace(fixed, seed=seed, warm_up_s=100.0)).latency_s(0.95) for seed in range(3)]
    assert np.mean(found) <= size(request, profile).fast_q_s
