"""How many replicas the HPA asks for, from the lag that KEDA reports.

After kubernetes/kubernetes pkg/controller/podautoscaler (replica_calculator.go: GetExternalPerPodMetricReplicas;
horizontal.go: stabilizeRecommendationWithBehaviors, convertDesiredReplicasWithBehaviorRate) and
kedacore/keda pkg/scalers/apache_kafka_scaler.go, as described in their documentation; written anew.
"""

from __future__ import annotations

import math
from collections import deque

from pipeline.capacity.simulation.scenario import ScalerSettings


class Scaler:
    """The state of one ScaledObject."""

    def __init__(self, settings: ScalerSettings, partitions: int) -> None:
        """Never asks for more members than partitions."""
        self._settings = settings
        self._partitions = partitions
        self._most = min(settings.max_replicas, partitions)
        self._wishes: deque[tuple[float, int]] = deque()  # the last of them are all that a window can hold
        self._changes: deque[tuple[float, int]] = deque()

    def decide(self, now_s: float, lag: int, current: int) -> int:
        """The number of replicas from now on.

        Args:
            now_s: of the sync; never earlier than the one before.
            lag: of the group, in records not committed.
            current: replicas that exist, started or not.
        """
        if not self._wishes:
            self._wishes.append((now_s, current))  # so that nothing changes before a first window is over
        self._wishes.append((now_s, self._wish(lag, current)))
        decided = self._limited(now_s, self._stabilised(now_s, current), current)
        if decided != current:
            self._changes.append((now_s, decided - current))
        return decided

    def _stabilised(self, now_s: float, current: int) -> int:
        """Up by the lowest wish of the up window, down by the highest of the down window; between them, nothing."""
        s = self._settings
        while self._wishes[0][0] <= now_s - max(s.up_window_s, s.down_window_s):
            self._wishes.popleft()
        newest = self._wishes[-1][1]
        lowest = min((w for at_s, w in self._wishes if at_s > now_s - s.up_window_s), default=newest)
        highest = max((w for at_s, w in self._wishes if at_s > now_s - s.down_window_s), default=newest)
        return min(max(current, lowest), highest)

    def _wish(self, lag: int, current: int) -> int:
        threshold = self._settings.lag_threshold
        reported = lag if self._settings.idle_consumers else min(lag, self._partitions * threshold)
        if current and abs(1.0 - reported / (threshold * current)) <= self._settings.tolerance:
            return current
        return min(self._most, max(self._settings.min_replicas, math.ceil(reported / threshold)))

    def _limited(self, now_s: float, wish: int, current: int) -> int:
        s = self._settings
        if wish > current:
            before = current - self._added(now_s - s.up_period_s)
            return min(wish, max(current, before + s.up_pods, math.ceil(before * (1.0 + s.up_share))))
        before = current + self._removed(now_s - s.down_period_s)
        return max(wish, min(current, before - s.down_pods))

    def _added(self, since_s: float) -> int:
        return sum(change for at_s, change in self._changes if at_s > since_s and change > 0)

    def _removed(self, since_s: float) -> int:
        return -sum(change for at_s, change in self._changes if at_s > since_s and change < 0)
