"""The whole cascade: references come, walk through the stages, and leave as decisions or dead letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from pipeline.capacity.distribution import Distribution
from pipeline.capacity.simulation.group import Group
from pipeline.capacity.simulation.items import Item
from pipeline.capacity.simulation.loop import Cores, Loop
from pipeline.capacity.simulation.result import Result, Series
from pipeline.capacity.simulation.scaler import Scaler
from pipeline.capacity.simulation.scenario import Scenario

_BLOCK = 4096
_MOST_RETRIES = 3


class Cascade:
    """One run. Equal scenarios give equal results."""

    def __init__(self, scenario: Scenario) -> None:
        """Nothing happens before `run`."""
        self._scenario = scenario
        self._loop = Loop()
        self._result = Result(scenario.seconds, scenario.warm_up_s)
        seeds = np.random.SeedSequence(scenario.seed).spawn(3)
        self._arrivals = _numbers(seeds[0], lambda rng: rng.exponential(1.0, _BLOCK).tolist())
        self._births = self._items(np.random.default_rng(seeds[1]))
        self._luck = _numbers(seeds[2], lambda rng: rng.random(_BLOCK).tolist())
        host = Cores(self._loop, scenario.host_cores) if scenario.host_cores else None
        self.groups = [
            Group(
                stage=stage,
                index=index,
                loop=self._loop,
                membership=scenario.membership,
                host=host,
                slowed=partial(scenario.slowed, stage.name),
                committed=partial(self._committed, index),
            )
            for index, stage in enumerate(scenario.stages)
        ]
        self._scalers = {
            g.stage.name: Scaler(scenario.scalers[g.stage.name], g.stage.partitions)
            for g in self.groups
            if g.stage.name in scenario.scalers
        }
        self._changed_s = scenario.warm_up_s
        for stage in scenario.stages:
            self._result.stages[stage.name] = Series()
            self._result.waits[stage.name] = []

    @property
    def in_system(self) -> int:
        """References that came and have not left."""
        return self._result.born - self._result.decided - self._result.dead

    def run(self) -> Result:
        """Until the scenario's end."""
        scenario = self._scenario
        self._next_arrival()
        self._sample()
        for group in self.groups:
            if group.stage.name in self._scalers:
                self._scale(group, -np.inf, 0)
            for loss in scenario.losses:
                if loss.stage == group.stage.name:
                    self._loop.after(loss.at_s, group.lose, loss.replicas)
        self._loop.run(scenario.seconds)
        self._count_time()
        self._result.redone = sum(group.redone for group in self.groups)
        return self._result

    # -- in and out --

    def _next_arrival(self) -> None:
        """Poisson; the rate of the moment holds until the next arrival."""
        self._loop.after(next(self._arrivals) / self._scenario.rate_at(self._loop.now_s), self._arrive)

    def _arrive(self) -> None:
        self._count_time()
        item = next(self._births)
        item.born_s = self._loop.now_s
        self._result.born += 1
        self._result.born_in_window += self._loop.now_s >= self._scenario.warm_up_s
        self.groups[0].receive(item, 0)
        self._next_arrival()

    def _committed(self, index: int, items: list[Item]) -> None:
        """Work of a stage became visible: the next stage receives it, or it is decided."""
        group = self.groups[index]
        waits = self._result.waits[group.stage.name]
        for item in items:
            if self._loop.now_s >= self._scenario.warm_up_s:
                waits.append(item.started_s - item.arrived_s)
            if index == 0 and self._scenario.retry_share and next(self._luck) < self._scenario.retry_share:
                self._retry(item)
            elif item.exit > index:
                following = self.groups[index + 1]
                following.receive(item, item.lane if len(following.stage.lanes) > 1 else 0)
            else:
                self._leave(item)

    def _retry(self, item: Item) -> None:
        if item.attempts == _MOST_RETRIES:
            self._leave(item, dead=True)
            return
        item.attempts += 1
        self.groups[0].receive(item, item.attempts)

    def _leave(self, item: Item, *, dead: bool = False) -> None:
        self._count_time()
        if dead:
            self._result.dead += 1
        else:
            self._result.decided += 1
        if self._loop.now_s >= self._scenario.warm_up_s:
            self._result.decided_in_window += 1
            self._result.latencies.append(self._loop.now_s - item.born_s)

    def _items(self, rng: np.random.Generator) -> Iterator[Item]:
        """Items with their ways and their work; drawn in blocks, because one by one takes ten times as long."""
        scenario = self._scenario
        while True:
            u = rng.random(_BLOCK)
            exits = sum((u < share).astype(np.int64) for share in scenario.reach[1:]) + np.zeros(_BLOCK, np.int64)
            lanes = np.where(rng.random(_BLOCK) < scenario.priority_share, 0, 1)
            keys = rng.random(_BLOCK).tolist()
            works = [_draws(stage.worked, rng) for stage in scenario.stages]
            for row in zip(exits.tolist(), lanes.tolist(), keys, *works, strict=True):
                yield Item(0.0, row[0], row[1], row[2], row[3:])

    # -- time --

    def _count_time(self) -> None:
        """Add the references in the system over the time since the last change; for Little's law."""
        now_s = self._loop.now_s
        if now_s > self._changed_s:
            self._result.area += self.in_system * (now_s - self._changed_s)
            self._changed_s = now_s

    def _sample(self) -> None:
        now_s = self._loop.now_s
        self._result.times_s.append(now_s)
        self._result.in_system.append(self.in_system)
        for group in self.groups:
            series = self._result.stages[group.stage.name]
            series.lag.append(group.lag)
            series.lag_s.append(group.lag_s(now_s))
            series.working.append(group.working)
            series.wanted.append(group.wanted)
        self._loop.after(self._scenario.sample_s, self._sample)

    def _scale(self, group: Group, asked_s: float, lag: int) -> None:
        """One sync of the HPA; KEDA's answer is used again until it is `poll_s` old."""
        settings = self._scenario.scalers[group.stage.name]
        now_s = self._loop.now_s
        if now_s - asked_s >= settings.poll_s:
            asked_s, lag = now_s, group.lag
        group.scale(self._scalers[group.stage.name].decide(now_s, lag, group.wanted))
        self._loop.after(settings.sync_s, self._scale, group, asked_s, lag)


def simulate(scenario: Scenario) -> Result:
    """Run a scenario once."""
    return Cascade(scenario).run()


def _draws(worked: Distribution, rng: np.random.Generator) -> list[float]:
    """Times by the inverse of the measured distribution, scaled to its mean."""
    table = np.asarray(worked.quantiles_s)
    u = rng.random(_BLOCK)
    drawn = np.interp(u, np.linspace(0.0, 1.0, table.size), table)
    between = float(np.trapezoid(table, dx=1.0 / (table.size - 1)))
    scaled: list[float] = (drawn * (worked.mean_s / between if between else 0.0)).tolist()
    return scaled


def _numbers(seed: np.random.SeedSequence, block: Callable[[np.random.Generator], list[float]]) -> Iterator[float]:
    rng = np.random.default_rng(seed)
    while True:
        yield from block(rng)
