"""Settings of any process of the fleet: environment (MEDIASIEVE_*), then a TOML file, then defaults.

`MEDIASIEVE_CONFIG` names the TOML file. Nested fields: MEDIASIEVE_KAFKA__BOOTSTRAP or `[kafka] bootstrap`.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from pipeline.detection.shadow_settings import ShadowSettings
from pipeline.media.store_settings import StoreSettings as StoreSettings  # noqa: PLC0414 - part of these settings
from pipeline.observability.health import HealthSettings
from pipeline.observability.logging import LogSettings
from pipeline.observability.tracing import TraceSettings
from pipeline.production import production_faults
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.plan import RunnerSettings

PREFIX = "MEDIASIEVE_"
CONFIG_VARIABLE = "MEDIASIEVE_CONFIG"


class SettingsInvalid(Exception):
    """Every fault of the settings at once, each with the variable that mends it; values are not shown."""


class FleetSettings(BaseSettings):
    """What every worker needs."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    production: bool = Field(
        default=False,
        description="refuse to start unless evidence is encrypted, locked and kept outside of the process",
    )
    kafka: KafkaSettings = KafkaSettings()
    store: StoreSettings = StoreSettings()
    bundle: Path | None = Field(default=None, description="bundle directory; none: the one in the package")
    shadow: ShadowSettings = ShadowSettings()
    retention_policy: Path | None = Field(
        default=None, description="how long evidence is kept, see evidence.md; none: nothing is locked or falls due"
    )
    health: HealthSettings = HealthSettings()
    log: LogSettings = LogSettings()
    trace: TraceSettings = TraceSettings()
    runner: RunnerSettings = RunnerSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as below
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings calls with all four
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, environment, TOML file."""
        path = os.environ.get(CONFIG_VARIABLE)
        toml = (TomlConfigSettingsSource(settings_cls, Path(path)),) if path else ()
        return init_settings, _Environment(settings_cls), *toml


class _Environment(EnvSettingsSource):
    """Leaves a value that is no JSON to the validation, which names its variable beside all other faults."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


S = TypeVar("S", bound=FleetSettings)


def load_settings(model: type[S]) -> S:
    """Read and check everything.

    Raises:
        SettingsInvalid: all faults at once.
    """
    faults = _unknown_variables(model)
    path = os.environ.get(CONFIG_VARIABLE)
    if path and not Path(path).is_file():
        faults.append(f"{CONFIG_VARIABLE}: no file at {path}")
    try:
        settings = model()
        faults += production_faults(settings.store) if settings.production else []
    except ValidationError as error:
        faults += [_fault(e) for e in error.errors(include_url=False)]
    except tomllib.TOMLDecodeError as error:
        faults.append(f"{CONFIG_VARIABLE}: {path}: {error}")
    except SettingsError as error:
        faults.append(str(error))
    if faults:
        raise SettingsInvalid("\n".join(faults))
    return settings


def _unknown_variables(model: type[FleetSettings]) -> list[str]:
    known = {f"{PREFIX}{name.upper()}" for name in model.model_fields}
    given = [v for v in os.environ if v.startswith(PREFIX) and v != CONFIG_VARIABLE]
    return [f"{v}: no such setting" for v in sorted(given) if v.partition("__")[0].upper() not in known]


def _fault(error: ErrorDetails) -> str:
    """Without the value, which may be a secret."""
    path = [str(part) for part in error["loc"]]
    no_json = error["type"].endswith("_type") and isinstance(error["input"], str)
    hint = "; in the environment: as JSON" if no_json else ""
    return f"{PREFIX}{'__'.join(path).upper()} (in the file: {'.'.join(path)}): {error['msg']}{hint}"
