"""`python -m tests.runbooks NAME [--home DIR]`: play one, print its transcript, exit 0 only if the counts are right."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.runbooks.brokers import broker_loss, partition_increase
from tests.runbooks.letters import dead_letters, internal_garbage, producer_flood
from tests.runbooks.mllm import mllm_outage
from tests.runbooks.restore import empty_groups, lost_database, new_cluster
from tests.runbooks.upgrade import rolling_upgrade
from workers.fleet import sigterm_is_ctrl_c

RUNBOOKS: dict[str, Callable[[Path], object]] = {
    "rolling-upgrade": rolling_upgrade,
    "partition-increase": partition_increase,
    "broker-loss": broker_loss,
    "dead-letters": dead_letters,
    "producer-flood": producer_flood,
    "internal-garbage": internal_garbage,
    "mllm-outage": mllm_outage,
    "empty-groups": empty_groups,
    "lost-database": lost_database,
    "new-cluster": new_cluster,
}


def main() -> int:
    """See the module; an assertion that fails is the runbook's error."""
    parser = argparse.ArgumentParser(prog="python -m tests.runbooks")
    parser.add_argument("name", choices=tuple(RUNBOOKS))
    parser.add_argument("--home", type=Path, default=None, help="an empty folder for data and logs, kept")
    options = parser.parse_args()
    play = RUNBOOKS[options.name]
    with sigterm_is_ctrl_c():  # so that no worker outlives it
        if options.home is not None:
            options.home.mkdir(parents=True)
            play(options.home.resolve())
            return 0
        with tempfile.TemporaryDirectory(prefix="mediasieve-runbook-") as home:
            play(Path(home))
    return 0


if __name__ == "__main__":
    sys.exit(main())
