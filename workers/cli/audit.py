"""`mediasieve audit`: keys of the audit log, proofs from it, and its verification."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.evidence.log.checkpoint import Checkpoint, open_checkpoint
from pipeline.evidence.log.errors import LogCorrupt, NotInLog, ProofInvalid
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.leaf import Leaf
from pipeline.evidence.log.merkle import verify_consistency
from pipeline.evidence.log.note import parse_note
from pipeline.evidence.log.proof import Proof, make_proof, verify_proof
from pipeline.evidence.log.reader import LogReader
from schemas.topics import Topic
from workers.audit.rotation import key_files, make_keys
from workers.audit.rotation import rotate as rotate_keys
from workers.audit.search import Found, find_by_place, find_newest
from workers.cli.audit_common import EXIT_NOT_FOUND, Key, keys_from, log_place, plainly, say
from workers.cli.audit_log import accept_gap, status, verify_log
from workers.cli.audit_witness import app as witness_app
from workers.cli.common import Bootstrap, Json, print_json

app = typer.Typer(
    help="The tamper-evident log of decisions, reviews, reference updates and erasures.\n\n"
    "Exit codes of all commands: 0 done, or it holds; 1 it does not hold; 2 wrong usage, settings, keys or input file; "
    "3 not found; 4 log or Kafka does not answer, or another process writes to the log.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command()(status)
app.command("accept-gap")(accept_gap)
app.add_typer(witness_app, name="witness")


@app.command()
def keygen(
    directory: Annotated[Path, typer.Argument(help="Folder for the two files; made if it is not there.")],
    name: Annotated[str | None, typer.Option(help="Name of the log; otherwise MEDIASIEVE_AUDIT__LOG_NAME.")] = None,
    if_absent: Annotated[bool, typer.Option("--if-absent", help="Do nothing where both files are there.")] = False,
) -> None:
    """Make the log's first pair of Ed25519 keys. Never overwrites one.

    Example: mediasieve audit keygen /etc/mediasieve/audit
    """
    with plainly():
        private, public = key_files(directory)
        if not (if_absent and private.exists() and public.exists()):
            make_keys(directory, name or log_place().settings.log_name)
        say(f"MEDIASIEVE_AUDIT__PRIVATE_KEY={private.resolve()}")
        say(f"MEDIASIEVE_AUDIT__PUBLIC_KEYS={public.resolve()}")


@app.command()
def rotate(
    new_private_key: Annotated[Path, typer.Argument(help="File for the next private key.")],
    *,
    stolen: Annotated[
        bool, typer.Option("--stolen", help="The key in use is in other hands: trust it for these checkpoints alone.")
    ] = False,
    json: Json = False,
) -> None:
    """Hand every tree over to a next key and retire the one in use; the file of public keys is replaced.

    A worker that still runs with the old key ends with exit code 8: start it with the new one. Stop workers that read
    a copy of the file of public keys before. Give the new file to everybody who verifies. Run again with the same file
    after an interruption. With --stolen, first `audit verify --all --kept DIR`; proofs under older checkpoints of that
    key must then be made again.

    Example: mediasieve audit rotate /etc/mediasieve/audit/2027.pem
    """
    with plainly():
        heads = rotate_keys(log_place(), new_private_key, stolen=stolen)
        for head in heads:
            if json:
                print_json({"origin": head.origin, "size": head.size, "root": head.root.hex()})
        if not json:
            say(
                f"{len(heads)} trees handed over; from now on MEDIASIEVE_AUDIT__PRIVATE_KEY={new_private_key.resolve()}"
            )


@app.command()
def prove(
    name: Annotated[str | None, typer.Argument(help="Decision uid or media id.")] = None,
    *,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The proof file.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Of the media id, where tenants use the same ones.")] = None,
    topic: Annotated[Topic | None, typer.Option(help="With --partition and --offset, instead of a name.")] = None,
    partition: Annotated[int | None, typer.Option(min=0)] = None,
    offset: Annotated[int | None, typer.Option(min=0)] = None,
    cosigned: Annotated[
        Path | None, typer.Option(help="Folder of `audit witness observe`: add its cosignature to the proof.")
    ] = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Write one file that proves, without the log, that a record is in it; `audit verify FILE` reads it.

    Of several leaves of that name the decision with the highest sequence is proved. Looks through the trees from their
    newest leaf. With --cosigned the proof is under the newest co-signed checkpoint, not under the log's newest.

    Example: mediasieve audit prove 0b1f5a1e-8f5e-5a53-9d0c-3f3c9d2a7c11 -o decision.tlog-proof
    """
    with plainly():
        found = _find(name, tenant, (topic, partition, offset), key)
        if found is None:
            say(
                f"no leaf for {name or f'{topic}[{partition}]@{offset}'} in {log_place().settings.log_name}", error=True
            )
            raise typer.Exit(EXIT_NOT_FOUND)
        note = _cosigned(cosigned, found) if cosigned else None
        path = output or Path(f"{found.leaf.decision_uid or found.tree.replace('/', '-')}-{found.index}.tlog-proof")
        path.write_bytes(make_proof(found.reader, found.index, note=note))
        gap = found.leaf.gap_from is not None
        if json:
            print_json({"proof": str(path), "gap": gap, **_facts(found)})
            return
        say(f"{path}: leaf {found.index} of {found.reader.origin}, {found.leaf.topic}@{found.leaf.offset}")
        if gap:
            missing = f"{found.leaf.gap_from} to {found.leaf.offset}"
            say(
                f"GAP: offset {offset} was never logged; the proof is of the leaf that says so of {missing}", error=True
            )


@app.command()
def verify(
    file: Annotated[Path | None, typer.Argument(help="A proof file.", exists=True, dir_okay=False)] = None,
    *,
    key: Key = None,
    every: Annotated[bool, typer.Option("--all", help="Re-read the whole log instead.")] = False,
    kafka: Annotated[bool, typer.Option("--kafka", help="With --all: compare with what Kafka holds too.")] = False,
    kept: Annotated[
        list[Path] | None,
        typer.Option(help="With --all: a checkpoint that you kept; the log must continue it. Repeat.", exists=True),
    ] = None,
    witness: Annotated[Path | None, typer.Option(help="File of witnesses' public keys.", exists=True)] = None,
    quorum: Annotated[int, typer.Option(help="How many witnesses must have co-signed.", min=0)] = 0,
    bootstrap: Bootstrap = None,
    json: Json = False,
) -> None:
    """Verify a proof file with nothing but the public key, or with --all the whole log.

    --all checks every entry's hash, every tile, that leaves are contiguous and offsets rise, and names the first bad
    index. --kafka: the set of (topic, partition, offset, digest) equals a read_committed re-read of what is still kept.
    Without a checkpoint that somebody kept elsewhere (--kept) no roll-back and no re-signed history can be seen.

    Example: mediasieve audit verify decision.tlog-proof --key audit-public-keys.json
    """
    if (file is None) is not every:
        raise typer.BadParameter("give a proof file, or --all")
    with plainly():
        if file is None:
            verify_log(key, kept or [], bootstrap, kafka=kafka, json=json)
            return
        witnesses = keys_from(witness) if witness else None
        data = file.read_bytes()
        checkpoint = verify_proof(data, None, keys_from(key), witnesses=witnesses, quorum=quorum)
        proof = Proof.parse(data)
        leaf = Leaf.parse(proof.entry or b"")
        if not checkpoint.origin.endswith(f"/{leaf.topic}/{leaf.partition}"):
            raise ProofInvalid(f"{file}: the leaf is of {leaf.topic}/{leaf.partition}, the log of {checkpoint.origin}")
        facts = {"ok": True, "origin": checkpoint.origin, "size": checkpoint.size, "index": proof.index}
        if json:
            print_json(facts | {"leaf": leaf.model_dump(mode="json", exclude_none=True)})
            return
        say(f"proved: leaf {proof.index} of {checkpoint.size} in {checkpoint.origin}")
        for field, value in leaf.model_dump(mode="json", exclude_none=True).items():
            say(f"{field:>18}: {value}")


@app.command()
def consistency(
    old: Annotated[Path, typer.Argument(help="A checkpoint file, kept earlier.", exists=True, dir_okay=False)],
    new: Annotated[Path, typer.Argument(help="A later one.", exists=True, dir_okay=False)],
    key: Key = None,
    json: Json = False,
) -> None:
    """Whether the tree of NEW continues the tree of OLD: nothing was changed or removed between. Reads the log.

    `audit status --save DIR` writes such files.

    Example: mediasieve audit consistency march/decisions.block-0.checkpoint april/decisions.block-0.checkpoint
    """
    with plainly():
        keys = keys_from(key)
        first, second = (open_checkpoint(path.read_bytes(), keys) for path in (old, new))
        if first.origin != second.origin:
            raise typer.BadParameter(f"{old} is of {first.origin}, {new} of {second.origin}")
        if first.size > second.size:
            raise LogCorrupt(f"{new} has {second.size} leaves, fewer than the {first.size} of {old}: rolled back")
        reader = _reader_of(second, keys)
        path = reader.consistency_proof(first.size, second.size)
        verify_consistency(first.size, first.root, second.size, second.root, path)
        if json:
            print_json({"ok": True, "origin": first.origin, "old": first.size, "new": second.size})
        else:
            say(f"{first.origin}: the {second.size} leaves of {new} continue the {first.size} of {old}")


def _reader_of(newest: Checkpoint, keys: KeySet) -> LogReader:
    """Of the log that the checkpoint is of, and must continue it: also where it is gone."""
    place = log_place()
    prefix = place.origin("")
    if not newest.origin.startswith(prefix):
        raise typer.BadParameter(f"the checkpoints are of {newest.origin}, the log of the settings is {prefix}...")
    reader = place.reader(newest.origin.removeprefix(prefix), keys)
    try:
        reader.check_continues(newest)
    except NotInLog as error:
        raise LogCorrupt(f"{error}, but it had one of {newest.size} leaves: the log was removed", 0) from error
    return reader


def _find(
    name: str | None, tenant: str | None, at: tuple[Topic | None, int | None, int | None], key: Path | None
) -> Found | None:
    place, keys = log_place(), keys_from(key)
    topic, partition, offset = at
    if name is not None and at == (None, None, None):
        return find_newest(place, keys, name, tenant)
    if name is None and topic is not None and partition is not None and offset is not None:
        return find_by_place(place, keys, topic, partition, offset)
    raise typer.BadParameter("give a decision uid or media id; or --topic, --partition and --offset")


def _facts(found: Found) -> dict[str, object]:
    leaf = found.leaf.model_dump(mode="json", exclude_none=True)
    return {"origin": found.reader.origin, "index": found.index, "leaf": leaf}


def _cosigned(directory: Path, found: Found) -> bytes:
    """The checkpoint that a witness co-signed, with its lines."""
    path = directory / f"{found.tree.replace('/', '-')}.checkpoint"
    note = path.read_bytes()
    size = Checkpoint.parse(parse_note(note).text).size
    if size <= found.index:
        raise NotInLog(
            f"{path} is of {size} leaves, and leaf {found.index} came later: run `audit witness observe` again"
        )
    return note
