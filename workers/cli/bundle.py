"""`mediasieve bundle`: the directory that defines a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.detection.bundle import DEFAULT_BUNDLE, Bundle
from workers.cli.bundle_training import calibrate_bundle, import_, train
from workers.cli.common import print_json

app = typer.Typer(
    help="Show, verify, train, import and calibrate bundles of weights, references and policy.", no_args_is_help=True
)
app.command()(train)
app.command("import")(import_)
app.command("calibrate")(calibrate_bundle)
Directory = Annotated[Path, typer.Argument(help="Bundle directory; none: the one in this package.", show_default=False)]


@app.command()
def show(directory: Directory = DEFAULT_BUNDLE) -> None:
    """The manifest and the policy, as JSON.

    Example: mediasieve bundle show
    """
    bundle = Bundle.load(directory)
    print_json({"manifest": bundle.manifest.model_dump(mode="json"), "policy": bundle.policy.model_dump(mode="json")})


@app.command()
def verify(directory: Directory = DEFAULT_BUNDLE) -> None:
    """Check every file against its sha256; exit 2 and the file's name when one was changed.

    Example: mediasieve bundle verify ./my-bundle
    """
    bundle = Bundle.load(directory)
    Console().print(f"{directory}: {bundle.version}, {len(bundle.manifest.files)} files as sealed", soft_wrap=True)
