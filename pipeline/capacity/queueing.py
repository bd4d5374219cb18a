"""Waiting times of a queue with Poisson arrivals and k equal servers.

Erlang C by the recursion over Erlang B. For service times that are not exponential the mean is scaled by
(Ca^2 + Cs^2) / 2, which is Allen's and Cunneen's approximation (A. O. Allen, Probability, Statistics, and Queueing
Theory with Computer Science Applications, 2nd edition, Academic Press 1990, chapter 5): exact for M/M/k and, by
Pollaczek and Khinchine, for M/G/1. The wait of those who wait is taken as exponential, which it is for M/M/k.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wait:
    """Before the service begins. `mean_s` is infinite when arrivals exceed what the servers can do."""

    utilisation: float
    delayed: float
    mean_s: float

    def quantile(self, level: float) -> float:
        """Seconds that a share of `level` does not exceed."""
        if math.isinf(self.mean_s):
            return math.inf
        if self.delayed <= 1.0 - level or self.mean_s == 0.0:
            return 0.0
        return self.mean_s / self.delayed * math.log(self.delayed / (1.0 - level))


def erlang_c(servers: int, offered: float) -> float:
    """Probability that an arrival to M/M/k has to wait; 1 when `offered` (Erlang) reaches `servers`.

    Raises:
        ValueError: no server, or a negative load.
    """
    if servers < 1 or offered < 0:
        raise ValueError(f"servers {servers}, offered {offered:g}: at least one server and no negative load")
    if offered >= servers:
        return 1.0
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = offered * blocked / (k + offered * blocked)
    return blocked / (1.0 - offered / servers * (1.0 - blocked))


def wait(rate_per_s: float, mean_s: float, scv: float, servers: int, *, arrival_scv: float = 1.0) -> Wait:
    """The wait before service.

    Args:
        rate_per_s: arrivals.
        mean_s: service time of one server.
        scv: squared coefficient of variation of the service time; 1 is exponential.
        servers: that work at once.
        arrival_scv: that of the times between arrivals; 1 is Poisson.
    """
    offered = rate_per_s * mean_s
    if offered == 0.0:
        return Wait(0.0, 0.0, 0.0)
    if offered >= servers:
        return Wait(offered / servers, 1.0, math.inf)
    delayed = erlang_c(servers, offered)
    exponential_s = delayed * mean_s / (servers - offered)
    return Wait(offered / servers, delayed, exponential_s * (arrival_scv + scv) / 2.0)
