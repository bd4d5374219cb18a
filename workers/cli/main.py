"""`mediasieve`: one command line for producers, operators and reviewers.

Exit codes: 0 done; 1 what was asked did not come out well (each command's help says when); 2 wrong usage,
settings, bundle or input file. A worker has more, see `mediasieve worker --help`.
"""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from mediasieve.client import GatewayProblem, GatewayUnavailable
from pipeline.capacity.observed import LoadFailed
from pipeline.capacity.profile import ProfileError
from pipeline.detection.bundle import BundleError
from pipeline.detection.policy import PolicyError
from pipeline.evaluation.fleet_run import FleetSilent
from pipeline.evaluation.layouts import DatasetError
from pipeline.evaluation.leakage import LeakageError
from pipeline.evaluation.monitoring.recorded import RecordUnreadable
from pipeline.evaluation.monitoring.weekly_sets import WeeklyInvalid
from pipeline.evaluation.score_row import ScoresError
from pipeline.evidence.erasure import ErasureRefused
from pipeline.evidence.legal_hold import HoldUnknown
from pipeline.evidence.object_lock import ObjectLockMissing
from pipeline.evidence.retention import RetentionPolicyError
from pipeline.evidence.sweep import SweepRefused
from pipeline.media.errors import ContentCorrupt, StoreUnavailable
from pipeline.media.master_keys import MasterKeyError
from pipeline.settings import SettingsInvalid
from pipeline.streaming.kafka.admin import AdminError
from pipeline.streaming.kafka.client import KafkaUnavailable
from pipeline.streaming.kafka.deadletter import NotReplayable
from workers.cli.adapters import app as adapters_app
from workers.cli.apikeys import app as apikeys_app
from workers.cli.audit import app as audit_app
from workers.cli.audit_sample import app as audit_sample_app
from workers.cli.bench import app as bench_app
from workers.cli.bundle import app as bundle_app
from workers.cli.bundle_training import TrainingRefused
from workers.cli.capacity import app as capacity_app
from workers.cli.common import logs_on_stderr
from workers.cli.console import app as console_app
from workers.cli.deadletter import app as deadletter_app
from workers.cli.decisions import decisions
from workers.cli.demo import demo
from workers.cli.drift import app as drift_app
from workers.cli.erase import erase
from workers.cli.evaluate import evaluate
from workers.cli.explain import explain
from workers.cli.fleet import up, worker
from workers.cli.hold import app as hold_app
from workers.cli.inspect import inspect
from workers.cli.keys import app as keys_app
from workers.cli.plan import plan
from workers.cli.policy import app as policy_app
from workers.cli.publish import publish
from workers.cli.references import app as references_app
from workers.cli.replay import replay
from workers.cli.retention import app as retention_app
from workers.cli.shadow import app as shadow_app
from workers.cli.topics import app as topics_app
from workers.fleet import FleetFailed
from workers.web.api_keys import KeyFileInvalid, UnknownKey

app = typer.Typer(
    name="mediasieve",
    help="Finds synthetic media in tiers, cheap first, on Kafka.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(demo)
app.command()(up)
app.command()(worker)
app.command()(publish)
app.command()(decisions)
app.command()(inspect)
app.command()(explain)
app.command()(evaluate)
app.command()(plan)
app.command()(replay)
app.command()(erase)
app.add_typer(topics_app, name="topics")
app.add_typer(deadletter_app, name="deadletter")
app.add_typer(bundle_app, name="bundle")
app.add_typer(policy_app, name="policy")
app.add_typer(adapters_app, name="adapters")
app.add_typer(audit_app, name="audit")
app.add_typer(audit_sample_app, name="audit-sample")
app.add_typer(shadow_app, name="shadow")
app.add_typer(drift_app, name="drift")
app.add_typer(bench_app, name="bench")
app.add_typer(capacity_app, name="capacity")
app.add_typer(references_app, name="references")
app.add_typer(retention_app, name="retention")
app.add_typer(hold_app, name="hold")
app.add_typer(keys_app, name="keys")
app.add_typer(apikeys_app, name="apikeys")
app.add_typer(console_app, name="console")

_WRONG_INPUT = (
    SettingsInvalid,
    BundleError,
    PolicyError,
    ProfileError,
    ScoresError,
    TrainingRefused,
    DatasetError,
    LeakageError,
    RetentionPolicyError,
    MasterKeyError,
    KeyFileInvalid,
    WeeklyInvalid,
)
_FOR_PEOPLE = (
    *_WRONG_INPUT,
    FleetSilent,
    RecordUnreadable,
    KafkaUnavailable,
    AdminError,
    NotReplayable,
    FleetFailed,
    LoadFailed,
    ErasureRefused,
    HoldUnknown,
    ObjectLockMissing,
    SweepRefused,
    ContentCorrupt,
    StoreUnavailable,
    UnknownKey,
    GatewayProblem,
    GatewayUnavailable,
)


def main() -> None:
    """Run the command line; an error that a person can mend is one clear text, without a traceback.

    Logs go to standard error, so that standard output holds what was asked for and nothing else.
    """
    try:
        with logs_on_stderr():
            app()
    except _FOR_PEOPLE as error:
        Console(stderr=True).print(f"mediasieve: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, _WRONG_INPUT) else 1)
