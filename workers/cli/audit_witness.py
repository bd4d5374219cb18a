"""`mediasieve audit witness`: a second party that co-signs only a log that grows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.evidence.log.checkpoint import open_checkpoint
from pipeline.evidence.log.errors import LogCorrupt, NotInLog, Untrusted, WitnessRefused
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.keys import KeyType
from pipeline.evidence.log.signer import Signer
from pipeline.evidence.log.storage import open_log_storage
from pipeline.evidence.log.witness import Witness
from workers.audit.log import LogPlace
from workers.cli.audit_common import EXIT_FALSE, Key, keys_from, log_place, plainly, say
from workers.cli.common import Json, print_json

app = typer.Typer(help="Co-sign checkpoints, on another host and account.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Option(help="Name of the witness, such as witness.example/audit.")]


@app.command("keygen")
def witness_keygen(
    directory: Annotated[Path, typer.Argument(help="Folder for the two files; made if it is not there.")], name: Name
) -> None:
    """Make a witness's pair of keys.

    Example: mediasieve audit witness keygen keys --name witness.example/audit
    """
    with plainly():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        signer = Signer.generate(name, KeyType.COSIGNATURE_V1)
        signer.save(directory / "witness-private.pem")
        KeySet([signer.verifier]).save(directory / "witness-public-keys.json")
        say(f"{directory / 'witness-private.pem'}, {directory / 'witness-public-keys.json'}")


@app.command()
def observe(
    *,
    private_key: Annotated[Path, typer.Option(help="The witness's private key.", exists=True)],
    name: Name,
    state: Annotated[str, typer.Option(help="URL of what the witness remembers, such as file:///var/lib/witness.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the co-signed checkpoints.")],
    key: Key = None,
    json: Json = False,
) -> None:
    """Read the log, and co-sign every tree that continues what was co-signed last. Run it now and then.

    Exit 1: a tree was rolled back, forked or removed; nothing of it was co-signed, and all others were.

    Example: mediasieve audit witness observe --private-key w.pem --name witness.example/audit --state file:///w -o out
    """
    with plainly():
        place, keys = log_place(), keys_from(key)
        signer = Signer.load(name, private_key, KeyType.COSIGNATURE_V1)
        witness = Witness(open_log_storage(state), signer, keys)
        output.mkdir(parents=True, exist_ok=True)
        prefix = place.origin("")
        known = {origin.removeprefix(prefix) for origin in witness.origins() if origin.startswith(prefix)}
        trees = sorted(known | {*place.trees()})
        good = [_cosign(place, tree, witness, keys, output, json=json) for tree in trees]
    if not all(good):
        raise typer.Exit(EXIT_FALSE)


def _cosign(place: LogPlace, tree: str, witness: Witness, keys: KeySet, output: Path, *, json: bool) -> bool:
    """Co-sign one tree, and keep what was signed; False: refused, and said why."""
    reader = place.reader(tree, keys)
    try:
        line = witness.observe(reader)
    except (WitnessRefused, LogCorrupt, Untrusted, NotInLog) as error:
        say(f"{tree}: REFUSED: {error}", error=True)
        return False
    note = reader.signed_checkpoint()  # the one that `observe` read
    (output / f"{tree.replace('/', '-')}.checkpoint").write_bytes(note + line)
    size = open_checkpoint(note, keys).size
    if json:
        print_json({"tree": tree, "leaves": size})
    else:
        say(f"{tree}: {size} leaves co-signed")
    return True
