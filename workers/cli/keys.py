"""`mediasieve keys`: the keys under which evidence is encrypted."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.media.key_store import KeyStore
from pipeline.settings import SettingsInvalid
from workers.cli.common import Json, print_json, settings_for

app = typer.Typer(help="The keys under which evidence is encrypted.", no_args_is_help=True)


@app.callback()
def keys() -> None:
    """The keys under which evidence is encrypted."""


@app.command()
def rewrap(
    tenant: Annotated[str | None, typer.Option(help="One tenant's keys; otherwise everybody's.")] = None,
    json: Json = False,
) -> None:
    """Wrap every key under `store.keys.current`. Workers may run; it may be stopped and run again.

    To rotate: add the new master key to `store.keys.master_keys` of all workers, then make it `current`, restart them,
    run this, and only then remove the old one.

    Example: mediasieve keys rewrap
    """
    settings = settings_for(None).store.keys
    if settings is None:
        raise SettingsInvalid("MEDIASIEVE_STORE__KEYS (in the file: store.keys): no key store is configured")
    done = KeyStore.open(settings).rewrap(tenant)
    if json:
        print_json(asdict(done) | {"master": settings.current})
        return
    print(
        f"{done.changed} keys are now under master key {settings.current!r}, {done.current} were already, "
        f"{done.destroyed} are destroyed"
    )
