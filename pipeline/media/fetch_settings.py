"""What a fetch may reach and what it may cost."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pipeline.media.hosts import HostSettings

MIB = 1_048_576


class FetchSettings(BaseModel):
    """Public http(s) hosts are reachable by default; files, buckets and private networks only when listed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = Field(default=32 * MIB, ge=1, le=1024 * MIB, description="largest media, in bytes")
    first_total_s: float = Field(default=2.0, gt=0.0, le=600.0, description="whole time of attempt 1")
    retry_total_s: float = Field(default=30.0, gt=0.0, le=600.0, description="whole time of later attempts")
    connect_timeout_s: float = Field(default=1.0, gt=0.0, le=60.0, description="time to connect to one address")
    read_timeout_s: float = Field(default=10.0, gt=0.0, le=600.0, description="longest silence while reading")
    min_bytes_per_s: int = Field(default=16_384, ge=0, le=1024 * MIB, description="slowest body, 0: any")
    grace_s: float = Field(default=1.0, ge=0.0, le=60.0, description="body time before its rate is judged")
    max_redirects: int = Field(default=3, ge=0, le=10, description="redirects followed, each checked")
    allowed_hosts: frozenset[str] = Field(
        default=frozenset(), description="names such as `a.example` or `*.example`; empty: every public host"
    )
    allowed_ports: frozenset[int] = Field(default=frozenset({80, 443}), description="http(s) ports")
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(), description="private networks that may be reached all the same"
    )
    ca_file: Path | None = Field(default=None, description="PEM file of further CAs to trust, for intranets")
    file_roots: tuple[Path, ...] = Field(default=(), description="directories below which file:// may read")
    object_roots: tuple[str, ...] = Field(
        default=(),
        description="readable buckets: `s3://bucket[/prefix]`, `gs://...`, `az://account/container`",
    )
    object_options: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="per scheme: region, endpoint and the like, as obstore names them"
    )
    hosts: HostSettings = Field(default_factory=HostSettings, description="slots and breakers per host")
