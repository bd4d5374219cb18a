"""One real worker that counts its way through the loop and dies, or freezes, where it is told to."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from pipeline.app import WorkerSpec, run_worker
from pipeline.settings import load_settings
from pipeline.streaming.clock import Deadline
from pipeline.streaming.kafka.transaction import KafkaTransaction
from pipeline.streaming.runner import HOOKS
from pipeline.streaming.transport import CommitPoint, Member, OutRecord, TopicPartition
from schemas.types import StageName
from tests.fault.journal import IN_TRANSACTION, Journal, die_with_parent
from tests.fault.stages import deadly_spectral, direct_classifier
from workers.registry import build_worker
from workers.settings import Settings

BETWEEN = "between"
"""Only a mutant comes by: its offsets are committed and its records are not, or the other way round."""

ALL_HOOKS = (*HOOKS, *IN_TRANSACTION, "committed")


class Transaction(KafkaTransaction):
    """The production ledger; tells the journal how many records a commit carries."""

    def __init__(self, settings: Settings, name: str, journal: Journal) -> None:
        super().__init__(settings.kafka.transactional_producer(f"{name}-{uuid4()}"), journal)
        self.journal = journal

    def commit(
        self,
        out: Sequence[OutRecord],
        offsets: Mapping[TopicPartition, CommitPoint],
        member: Member,
        deadline: Deadline,
    ) -> None:
        self.journal.records_in_hand = len(out)
        super().commit(out, offsets, member, deadline)


class OffsetsFirst(Transaction):
    """MUTANT: the offsets are committed apart from the records, before them. A death in between loses records."""

    def commit(
        self,
        out: Sequence[OutRecord],
        offsets: Mapping[TopicPartition, CommitPoint],
        member: Member,
        deadline: Deadline,
    ) -> None:
        super().commit((), offsets, member, deadline)
        if out:
            self.journal(BETWEEN)
            super().commit(out, {}, member, deadline)


class OffsetsLast(Transaction):
    """MUTANT: the offsets are committed apart from the records, after them. A death in between doubles records."""

    def commit(
        self,
        out: Sequence[OutRecord],
        offsets: Mapping[TopicPartition, CommitPoint],
        member: Member,
        deadline: Deadline,
    ) -> None:
        if out:
            super().commit(out, {}, member, deadline)
            self.journal(BETWEEN)
        super().commit((), offsets, member, deadline)


LEDGERS = {"": Transaction, "offsets-first": OffsetsFirst, "offsets-last": OffsetsLast}


def build(stage: StageName, variant: str, settings: Settings) -> WorkerSpec:
    """The worker as it is, or with a stage of the tests in it."""
    match variant:
        case "direct":
            return direct_classifier(settings)
        case "deadly":
            return deadly_spectral(settings)
        case _:
            return build_worker(stage, settings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Settings come from MEDIASIEVE_* as in production; returns the worker's own exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", type=StageName)
    parser.add_argument("--journal", type=Path, required=True, help="file of hooks, one a line")
    parser.add_argument("--variant", choices=("", "direct", "deadly"), default="")
    parser.add_argument("--mutant", choices=tuple(LEDGERS), default="")
    parser.add_argument("--at", choices=("", BETWEEN, *ALL_HOOKS), default="", help="hook at which to send the signal")
    parser.add_argument("--nth", type=int, default=1)
    parser.add_argument("--after-s", type=float, default=0.0)
    parser.add_argument("--signal", choices=("SIGKILL", "SIGSTOP"), default="SIGKILL")
    options = parser.parse_args(arguments)
    die_with_parent()
    settings = load_settings(Settings)
    signum = signal.Signals[options.signal]
    journal = Journal(options.journal, options.at, options.nth, options.after_s, signum)
    ledger = LEDGERS[options.mutant](settings, options.stage.value, journal)
    return run_worker(build(options.stage, options.variant, settings), settings, journal, ledger)
