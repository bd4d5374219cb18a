"""The audit log of one demo run: its keys, and whether it holds at the end."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.evidence.log.verify_all import verify_all
from pipeline.media.store_settings import StoreSettings
from pipeline.settings import load_settings
from pipeline.streaming.codec import TopicNames
from pipeline.streaming.kafka.admin import TopicAdmin
from pipeline.streaming.kafka.config import KafkaSettings
from schemas.topics import AUDITED_TOPICS
from workers.audit.completeness import compare_with_kafka
from workers.audit.log import LogPlace
from workers.audit.rotation import PRIVATE_KEY, PUBLIC_KEYS, make_keys
from workers.audit.settings import AuditSettings
from workers.audit.worker import NAME
from workers.settings import Settings

_LOG_NAME = "mediasieve"
_POLL_S = 0.3


@dataclass(frozen=True, slots=True)
class AuditOutcome:
    """Leaves and trees of the log; `records` that Kafka holds and the log has; `faults` in words."""

    leaves: int
    trees: int
    records: int
    waiting: int
    faults: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """The log holds, and has every record."""
        return not self.faults and not self.waiting

    def summary(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self) | {"ok": self.ok}

    def __str__(self) -> str:
        if self.faults:
            return f"DOES NOT HOLD: {self.faults[0]}"
        holds = f"{self.leaves} leaves in {self.trees} trees; `audit verify --all --kafka` holds"
        return f"{holds}; {self.waiting} records still wait for their leaf" if self.waiting else holds


def audit_environment(home: Path) -> dict[str, str]:
    """Settings of the audit worker, with keys made for this run."""
    private, public = make_keys(home / "keys", _LOG_NAME)
    return {
        "MEDIASIEVE_AUDIT__URL": (home / "store" / "audit").as_uri(),
        "MEDIASIEVE_AUDIT__LOG_NAME": _LOG_NAME,
        "MEDIASIEVE_AUDIT__PRIVATE_KEY": str(private),
        "MEDIASIEVE_AUDIT__PUBLIC_KEYS": str(public),
    }


def check_audit(home: Path, kafka: KafkaSettings, timeout_s: float = 120.0) -> AuditOutcome:
    """Wait for the audit worker to reach the end of its topics, then verify the log as `audit verify` does."""
    _wait_for_worker(kafka, timeout_s)
    place = LogPlace.of(_settings(home))
    keys = place.keys()
    found = {tree: verify_all(place.tree(tree), place.origin(tree), keys) for tree in place.trees()}
    compared = compare_with_kafka(place, keys, kafka)
    faults = [f"{tree}: {fault.message}" for tree, one in found.items() for fault in one.faults]
    faults += [f"{one.tree}: {one.detail}" for one in compared if not one.ok]
    return AuditOutcome(
        leaves=sum(one.entries for one in found.values()),
        trees=len(found),
        records=sum(one.compared for one in compared),
        waiting=sum(one.pending for one in compared),
        faults=tuple(faults),
    )


def _settings(home: Path) -> Settings:
    audit = AuditSettings(
        url=(home / "store" / "audit").as_uri(),
        log_name=_LOG_NAME,
        private_key=home / "keys" / PRIVATE_KEY,
        public_keys=home / "keys" / PUBLIC_KEYS,
    )
    store = StoreSettings(url=(home / "store").as_uri())
    return load_settings(Settings).model_copy(update={"audit": audit, "store": store})


def _wait_for_worker(kafka: KafkaSettings, timeout_s: float) -> None:
    admin, names = TopicAdmin(kafka.common()), TopicNames(kafka.topic_prefix)
    topics = [names.physical(topic) for topic in AUDITED_TOPICS]
    end_s = time.monotonic() + timeout_s
    while any(admin.group_lag(kafka.group(NAME), topics).values()) and time.monotonic() < end_s:
        time.sleep(_POLL_S)
