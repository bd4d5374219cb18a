"""`mediasieve capacity`: what it prints and refuses. No broker, and how fast anything is, is no test."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from pipeline.capacity.check import capacity_per_s, compare, scenario
from pipeline.capacity.distribution import Distribution
from pipeline.capacity.observed import LoadFailed, Observed, Repetition, StageObserved
from pipeline.capacity.simulation.cascade import simulate
from pipeline.capacity.simulation.result import Result
from schemas.types import StageName
from workers.cli.capacity import app

SLOTS = {StageName.CLASSIFIER: 8, StageName.SPECTRAL: 2, StageName.MLLM: 2}
WORKED_S = {StageName.CLASSIFIER: 0.3, StageName.SPECTRAL: 0.1, StageName.MLLM: 4.0}
SMALL = ["--rate", "20/s", "--mix", "suspect=10%,anomalous=2%"]


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*words], terminal_width=400)
    return done.exit_code, done.output


def observed(result: Result | None = None, rate_per_s: float = 0.4, reach: float = 0.3) -> Observed:
    """A run as a fleet of these service times shows it; of a simulated one, if `result` is given."""
    answered = len(result.latencies) if result else 42
    items = {s: answered if s is not StageName.MLLM else round(answered * reach) for s in StageName}
    return Observed(
        rate_per_s=rate_per_s,
        seed=1,
        seconds=120.0,
        warm_up_s=15.0,
        sent=answered,
        answered=answered,
        visits=items,
        stages={
            s: StageObserved(
                items=items[s],
                worked=Distribution.exponential(WORKED_S[s]) if items[s] else None,
                waited=Distribution.of(result.waits[s.value] if result else [0.01] * 9),
                cpu_s=10.0,
                idle_cores=0.01,
                commit_s=0.01,
            )
            for s in StageName
        },
        latency=Distribution.of(result.latencies if result else [1.0]),
        in_system=tuple(result.in_system) if result else (0,) * 120,
        broker_cpu_s=1.0,
        driver_cpu_s=1.0,
        other_cores=0.0,
        cores=2,
    )


def repetition(slower: float = 1.0) -> Repetition:
    """Run A, and B and C as a fleet would do them whose tier 3 takes `slower` times as long."""
    a = observed()
    made = [a]
    for seed, share in ((101, 0.6), (102, 1.5)):
        load = observed(rate_per_s=share * capacity_per_s(a, SLOTS[StageName.MLLM]))
        asked = scenario(Repetition(slots=SLOTS, partitions=4, runs=(a, a, a)), a, load, seed)
        third = replace(asked.stages[2], worked=Distribution.exponential(WORKED_S[StageName.MLLM] * slower))
        result = simulate(replace(asked, stages=(*asked.stages[:2], third)))
        made.append(observed(result, load.rate_per_s))
    return Repetition(slots=SLOTS, partitions=4, runs=(made[0], made[1], made[2]))


def test_a_fleet_that_is_as_simulated_is_predicted_and_one_that_is_not_is_not() -> None:
    inside = {}
    for slower in (1.0, 4.0):
        rows = compare(repetition(slower), seeds=20)
        assert [(r.run, r.figure) for r in rows[:5]] == [("B", r.figure) for r in rows[5:]]
        inside[slower] = sum(r.predicted.low <= r.measured <= r.predicted.high for r in rows)
    assert inside[1.0] >= 7  # of 10, by 90 % ranges, which are not independent
    assert inside[4.0] <= 3


def test_the_formula_of_throughput_is_the_smaller_of_what_comes_and_what_tier_3_does() -> None:
    rows = {(r.run, r.figure): r.formula for r in compare(repetition(), seeds=2)}
    a, b, c = repetition().runs
    share = a.stages[StageName.MLLM].items / a.answered
    assert rows["B", "decisions, 1/s"] == pytest.approx(b.rate_per_s)
    full = SLOTS[StageName.MLLM] / a.stages[StageName.MLLM].worked.mean_s  # type: ignore[union-attr]  # it is given
    assert rows["C", "decisions, 1/s"] == pytest.approx(c.rate_per_s * (1 - share) + full)


def test_a_run_in_which_nothing_reached_tier_3_says_so() -> None:
    a = observed(reach=0.0)
    with pytest.raises(LoadFailed, match="run A: nothing reached"):
        capacity_per_s(a, 2)
    with pytest.raises(LoadFailed, match="run A: nothing reached mllm"):
        compare(Repetition(slots=SLOTS, partitions=4, runs=(a, a, a)), seeds=1)


def test_check_shows_runs_that_were_made_before(tmp_path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text(repetition().model_dump_json() + "\n")
    code, said = run("check", "--runs", str(path), "--json")
    rows = [json.loads(line) for line in said.splitlines()]
    assert (code, len(rows), {row["run"] for row in rows}) == (0, 10, {"B", "C"})
    code, said = run("check", "--runs", str(path))
    assert code == 0
    assert "of 10" in said


def test_check_names_a_file_that_holds_no_runs(tmp_path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text('{"slots": {}}\n')
    code, said = run("check", "--runs", str(path))
    assert code == 2
    assert "runs.jsonl" in said.replace("\n", "")


def test_the_sizes_say_where_they_come_from_and_what_is_not_known() -> None:
    code, said = run(*SMALL)
    assert code == 0
    assert "mediasieve capacity measure" in said
    assert "GPUs not known: give --mllm-seconds" in said


def test_a_time_that_cannot_be_met_is_an_error_with_its_reason() -> None:
    code, said = run(*SMALL, "--sla", "1ms", "--json")
    assert code == 1
    (unmet,) = json.loads(said)["unmet"]
    assert "cannot be met" in unmet


def test_shares_come_from_a_plan(tmp_path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"load": {"stage2": {"share": 0.2}, "stage3": {"share": 0.05}}}))
    code, said = run("--rate", "20/s", "--plan", str(path), "--json")
    assert code == 0
    assert [*json.loads(said)["stages"]] == [*StageName]
    assert json.loads(said)["request"]["visits"] == {"spectral": 0.2, "mllm": 0.05, "retry": 0.0}
    path.write_text("{}")
    assert run("--rate", "20/s", "--plan", str(path))[0] == 2


@pytest.mark.parametrize(
    "words",
    [
        ["--rate", "fast"],
        [*SMALL, "--plan", "x"],
        ["--rate", "1/s", "--mix", "suspect=1%,anomalous=2%"],
        ["simulate", "x"],
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str]) -> None:
    assert run(*words)[0] == 2


def test_a_replica_of_more_cores_does_more_until_its_slots_are_full() -> None:
    found = {}
    for cores in (2, 4, 1000):
        code, said = run("replica", "classifier", "--cores", str(cores), "--slots", "32", "--json")
        assert code == 0
        found[cores] = json.loads(said)
    assert found[4]["rate_per_s"] == pytest.approx(2 * found[2]["rate_per_s"], rel=0.01)
    assert found[1000]["lag_threshold"] > found[4]["lag_threshold"] > 30 * found[4]["rate_per_s"]
    slots = run("replica", "mllm", "--mllm-seconds", "10", "--mllm-places", "4", "--drain", "20s", "--json")[1]
    assert json.loads(slots) == {"stage": "mllm", "rate_per_s": 0.4, "drain_s": 20.0, "lag_threshold": 12}


def test_an_incident_is_simulated_alike_each_time_and_drawn(tmp_path) -> None:
    words = ["simulate", "burst", "--rate", "5/s", "--mix", "suspect=10%,anomalous=2%", "--minutes", "11", "--json"]
    first = run(*words, "--png", str(tmp_path / "burst.png"))
    assert first == run(*words)
    assert first[0] == 0
    facts = json.loads(first[1])
    assert facts["references"] >= facts["decided"] > 0
    assert facts["stages"]["classifier"]["lag_most"] > facts["stages"]["classifier"]["lag_end"]
    assert (tmp_path / "burst.png").read_bytes().startswith(b"\x89PNG")
