"""Where original bytes, evidence and the keys that open them lie."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

_URL = r"^(file:///|s3://|gs://|az://|memory://)"
_KINDS = "file:///dir, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
_OPTIONS = "region, endpoint and the like, as obstore names them; credentials belong in the environment"

MasterKeyId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class KeySettings(BaseModel):
    """The key store, and the master keys under which its keys are wrapped."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(
        pattern=_URL,
        description=f"{_KINDS}; without versions and without Object Lock, or no key can be destroyed",
    )
    options: dict[str, str] = Field(default_factory=dict, repr=False, description=_OPTIONS)
    master_keys: dict[MasterKeyId, Path] = Field(
        min_length=1, description="id to file: 32 random bytes in base64, as `openssl rand -base64 32` writes them"
    )
    current: MasterKeyId = Field(description="id of the master key that wraps new keys; the others only open old ones")

    @model_validator(mode="after")
    def _current_is_listed(self) -> Self:
        if self.current not in self.master_keys:
            raise ValueError(f"`current` is {self.current!r}, which is not in `master_keys`; add its file there")
        return self


class StoreSettings(BaseModel):
    """Where original bytes and evidence lie."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(default="file:///var/lib/mediasieve", pattern=_URL, description=_KINDS)
    options: dict[str, str] = Field(default_factory=dict, repr=False, description=_OPTIONS)
    keys: KeySettings | None = Field(default=None, description="none: what is stored is not encrypted")
