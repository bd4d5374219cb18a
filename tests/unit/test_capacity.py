"""Queueing formulas, sizes, units and the HPA's arithmetic."""

import math

import pytest

from pipeline.capacity import units
from pipeline.capacity.distribution import Distribution
from pipeline.capacity.profile import Profile, ProfileError, Visits
from pipeline.capacity.queueing import erlang_c, wait
from pipeline.capacity.simulation.scaler import Scaler
from pipeline.capacity.simulation.scenario import ScalerSettings
from pipeline.capacity.sizing import Request, size
from pipeline.capacity.storage import storage
from schemas.types import StageName

VISITS = Visits(spectral=0.1, mllm=0.02)


def request(**changes):
    return Request(**({"rate_per_s": 50.0, "visits": VISITS, "sla_s": 60.0} | changes))


def test_erlang_c_of_two_servers_is_the_textbook_value():
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)  # 2 rho^2 / (1 + rho) at rho = 1/2


def test_waits_of_one_server_are_those_of_pollaczek_and_khinchine():
    assert wait(0.5, 1.0, 1.0, 1).mean_s == pytest.approx(1.0)
    assert wait(0.5, 1.0, 0.0, 1).mean_s == pytest.approx(0.5)


def test_the_quantile_of_a_wait_is_that_of_m_m_1():
    found = wait(0.8, 1.0, 1.0, 1)
    assert 0.8 * math.exp(-(1.0 - 0.8) * found.quantile(0.95)) == pytest.approx(0.05)


def test_more_arrivals_than_servers_wait_for_ever():
    assert math.isinf(wait(3.0, 1.0, 1.0, 2).quantile(0.5))


def test_sizing_leaves_headroom_and_partitions_for_the_burst():
    profile = Profile.load()
    sized = size(request(headroom=0.4, burst=5.0), profile)
    for stage in sized.stages.values():
        assert stage.utilisation <= 0.6 + 1e-9
        assert stage.partitions >= 5 * stage.replicas


def test_each_replica_has_a_queue_of_its_own():
    """Kafka gives a partition to one member: the busy one's neighbours do not help it."""
    profile = Profile.load()
    sized = size(request(rate_per_s=500.0), profile).stages[StageName.CLASSIFIER]
    stage = profile.stages[StageName.CLASSIFIER]
    mine = sized.rate_per_s * math.ceil(sized.partitions / sized.replicas) / sized.partitions
    alone = wait(mine, stage.worked.mean_s, stage.worked.scv, int(stage.servers))
    assert sized.wait == alone
    assert alone.mean_s > 0.05


@pytest.mark.parametrize("burst", [1.0, 1.3, 2.0, 3.0])
@pytest.mark.parametrize("rate_per_s", [3.0, 41.0, 333.0, 2500.0])
def test_the_member_with_most_partitions_has_its_headroom_too(burst, rate_per_s):
    for stage in size(request(rate_per_s=rate_per_s, burst=burst), Profile.load()).stages.values():
        share = math.ceil(stage.partitions / stage.replicas) / stage.partitions
        assert stage.rate_per_s * share <= 0.7 * stage.replica_rate_per_s + 1e-9


def test_the_threshold_is_what_a_busy_replica_has_in_work_and_thirty_seconds_more():
    stage = (
        Profile.load()
        .replaced(StageName.MLLM, worked=Distribution.constant(10.0), cpu_s=None, slots=4)
        .stages[StageName.MLLM]
    )
    assert stage.lag_threshold(30.0) == 4 + 12


def test_a_shorter_time_needs_no_fewer_replicas_and_an_impossible_one_is_said_to_be():
    profile = Profile.load()
    loose, tight = size(request(), profile), size(request(sla_s=0.001), profile)
    assert not loose.unmet
    assert "cannot be met" in tight.unmet[0]
    assert all(tight.stages[s].replicas >= loose.stages[s].replicas for s in StageName)


def test_gpus_of_a_stub_are_not_known_and_those_of_a_given_model_are():
    profile = Profile.load()
    assert size(request(), profile).stages[StageName.MLLM].gpus is None
    real = profile.replaced(StageName.MLLM, worked=Distribution.constant(29.0), slots=32, gpus=1.0)
    assert size(request(), real).stages[StageName.MLLM].gpus == 2.0  # 1/s x 29 s / 32, at most 70 % busy


def test_disk_is_rate_by_size_by_retention_by_copies():
    profile = Profile.load()
    none = Visits(spectral=0.0, mllm=0.0)
    found = storage(10.0, none, profile, replication=3, readers=2)
    day = 86_400
    assert found.disk == pytest.approx(
        3 * 10.0 * (profile.bytes.reference * 7 * day + profile.bytes.decision * 30 * day)
    )
    assert found.consumed_per_s == pytest.approx(10.0 * (profile.bytes.reference + 2 * profile.bytes.decision))


def test_a_broken_profile_names_its_field(tmp_path):
    path = tmp_path / "profile.json"
    path.write_text(Profile.load().model_dump_json().replace('"slots":', '"slot":'))
    with pytest.raises(ProfileError, match=r"stages\.classifier\.slots"):
        Profile.load(path)


@pytest.mark.parametrize(("text", "value"), [("500/s", 500.0), ("86400/day", 1.0), ("30/min", 0.5)])
def test_rates(text, value):
    assert units.rate(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["500", "0/s", "-1/s", "5/week", "nan/s"])
def test_what_is_no_rate(text):
    with pytest.raises(ValueError, match="rate such as"):
        units.rate(text)


def test_a_mix_must_name_both_tiers():
    assert units.mix("suspect=10%,anomalous=0.02") == VISITS
    with pytest.raises(ValueError, match="anomalous missing"):
        units.mix("suspect=10%")


def scaler(**changes):
    hpa = {"up_pods": 4, "up_share": 1.0, "up_period_s": 15.0, "up_window_s": 0.0, "down_window_s": 300.0}
    given = {"lag_threshold": 100, "max_replicas": 50, "down_period_s": 60.0} | hpa | changes
    return Scaler(ScalerSettings(**given), partitions=12)


def test_the_threshold_is_a_lag_of_one_replica_and_partitions_bound_it():
    hpa = scaler(up_pods=100)
    assert hpa.decide(0.0, 750, 4) == 8
    assert hpa.decide(60.0, 10**6, 8) == 12


def test_a_lag_that_is_cut_never_asks_for_the_last_member():
    assert scaler(idle_consumers=False).decide(0.0, 10**6, 11) == 11
    assert scaler(idle_consumers=True).decide(0.0, 10**6, 11) == 12


def test_within_the_tolerance_nothing_changes():
    assert scaler().decide(0.0, 409, 4) == 4


def test_it_grows_by_four_pods_or_doubles_in_a_period():
    hpa = scaler()
    assert hpa.decide(0.0, 1200, 1) == 5
    assert hpa.decide(10.0, 1200, 5) == 5  # the period of the first step is not over
    assert hpa.decide(16.0, 1200, 5) == 10


def test_it_grows_by_the_lowest_wish_of_the_window():
    hpa = scaler(up_window_s=30.0, up_pods=100)
    assert hpa.decide(0.0, 200, 2) == 2
    assert hpa.decide(15.0, 800, 2) == 2
    assert hpa.decide(29.0, 600, 2) == 2
    assert hpa.decide(31.0, 900, 2) == 6


def test_it_shrinks_by_the_highest_wish_of_the_window_one_pod_a_minute():
    hpa = scaler()
    assert hpa.decide(0.0, 800, 8) == 8
    assert hpa.decide(299.0, 0, 8) == 8
    assert hpa.decide(301.0, 0, 8) == 7
    assert hpa.decide(320.0, 0, 7) == 7
    assert hpa.decide(362.0, 0, 7) == 6
