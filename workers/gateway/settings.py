"""Settings of the ingest gateway."""

from __future__ import annotations

from pydantic import Field

from schemas.topics import INGEST_MAX_BYTES
from schemas.types import ContentType, StageName
from workers.web.principal import UriScheme
from workers.web.settings import WebSettings

MIB = 1_048_576


class GatewaySettings(WebSettings):
    """The section [gateway]."""

    max_json_bytes: int = Field(
        default=INGEST_MAX_BYTES - 65_536, ge=1024, le=INGEST_MAX_BYTES, description="largest body with one reference"
    )
    max_batch_bytes: int = Field(default=16 * MIB, ge=1024, le=256 * MIB, description="largest body of a batch")
    max_upload_bytes: int = Field(
        default=32 * MIB, ge=1, le=1024 * MIB, description="largest file; no more than classifier.fetch.max_bytes"
    )
    content_types: frozenset[ContentType] = Field(
        default=frozenset({"image/jpeg", "image/png", "image/webp", "image/tiff", "image/bmp"}),
        description="types of uploaded files to take; a key may have fewer",
    )
    schemes: frozenset[UriScheme] = Field(
        default=frozenset({UriScheme.HTTP, UriScheme.HTTPS, UriScheme.CONTENT}),
        description="URIs that callers may name; of files and buckets they could read what is another tenant's, so "
        "give those to single keys (`mediasieve apikeys create --scheme`)",
    )
    per_second: float = Field(default=50.0, gt=0, le=1e6, description="items of one caller a second, on average")
    burst: int = Field(
        default=1000, ge=1, le=1_000_000, description="items of one caller at once; a batch needs its size"
    )
    ack_timeout_s: float = Field(
        default=10.0, gt=0, le=300, description="longest wait for the broker's acknowledgement"
    )
    queue_records: int = Field(default=10_000, ge=1, le=1_000_000, description="records that may wait for it")
    uploads_at_once: int = Field(default=4, ge=1, le=1024, description="uploads held in memory; more wait their turn")
    uploads_open: int = Field(
        default=64, ge=1, le=65_536, description="uploads received at once, each in a temporary file; more get 503"
    )
    receive_s: float = Field(default=300.0, gt=0, le=86_400, description="longest time for a caller to send a body")
    max_lag_s: float = Field(
        default=600.0, gt=0, le=604_800, description="a stage further behind than this: new media is answered with 429"
    )
    lag_stages: frozenset[StageName] = Field(
        default=frozenset(StageName), description="stages whose lag counts; one left out may fall behind"
    )
    lag_every_s: float = Field(default=5.0, gt=0, le=600, description="how often lag is measured")
    rate_window_s: float = Field(default=120.0, gt=0, le=3600, description="time over which a stage's rate is measured")
    keep_days: float = Field(
        default=30.0, gt=0, le=3660, description="how long submissions, answers and idempotency keys are kept"
    )
    stream_poll_s: float = Field(
        default=1.0, gt=0, le=60, description="how soon a stream sees what another gateway has read"
    )
    stream_ping_s: float = Field(default=15.0, gt=0, le=300, description="a comment on a silent stream, for proxies")
    streams_per_caller: int = Field(default=8, ge=1, le=1000, description="open streams of one caller in this process")
