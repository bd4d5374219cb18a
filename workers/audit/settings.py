"""Settings of the audit worker and of the command `mediasieve audit`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class GapPolicy(StrEnum):
    """What to do when Kafka no longer keeps records that are not in the log."""

    STOP = "stop"
    RECORD = "record"


class AuditSettings(BaseModel):
    """The section [audit]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = Field(
        default=None,
        pattern=r"^(file:///|s3://|gs://|az://|memory://)",
        description="where the log lies, as store.url; none: the folder `audit` in the content store",
    )
    options: dict[str, str] = Field(
        default_factory=dict, repr=False, description="region, endpoint and the like of audit.url, as in store.options"
    )
    log_name: str = Field(
        default="mediasieve",
        max_length=64,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$",
        description="first part of each tree's origin and folder, LOG_NAME/TOPIC/PARTITION, and name of the keys; "
        "another name is another log",
    )
    private_key: Path | None = Field(
        default=None, description="file of the Ed25519 key that signs; `mediasieve audit keygen` makes it"
    )
    public_keys: Path | None = Field(
        default=None, description="JSON file of the public keys to trust, retired ones too"
    )
    kept: Path | None = Field(
        default=None,
        description="folder of checkpoints (*.checkpoint) that were kept elsewhere: the worker refuses a log that does "
        "not continue each",
    )
    batch_size: int = Field(default=256, ge=1, le=1_000, description="records of a partition that make a checkpoint")
    checkpoint_age_s: float = Field(
        default=1.0, ge=0, le=3600, description="longest wait of a record for its checkpoint, in seconds"
    )
    retain_threads: int = Field(
        default=16,
        ge=1,
        le=256,
        description="decisions archived and locked at once; more for a store that is far away",
    )
    gap: GapPolicy = Field(
        default=GapPolicy.STOP,
        description="stop: exit 10 when retention has removed records that are not in the log; record: log a leaf that "
        "says so, and go on",
    )
    backoff_first_s: float = Field(default=0.5, gt=0, description="first wait for a log or store that is away; doubles")
    backoff_max_s: float = Field(default=30.0, gt=0, description="longest wait for it")

    def log_url(self, store_url: str) -> str:
        """Where the log lies, given the content store's URL."""
        return self.url or f"{store_url.rstrip('/')}/audit"
