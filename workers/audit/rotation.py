"""Keys of a log: a first pair, and the change to a next one."""

from __future__ import annotations

from pathlib import Path

from pipeline.evidence.log.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from pipeline.evidence.log.errors import KeyFileInvalid
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.signer import Signer
from workers.audit.log import LogPlace

PRIVATE_KEY = "audit-private.pem"
PUBLIC_KEYS = "audit-public-keys.json"


def key_files(directory: Path) -> tuple[Path, Path]:
    """Where `make_keys` puts the private key and the file of public keys."""
    return directory / PRIVATE_KEY, directory / PUBLIC_KEYS


def make_keys(directory: Path, name: str) -> tuple[Path, Path]:
    """A new pair in a directory, which is made: the private key for its owner alone, and the public keys' file.

    Raises:
        KeyFileInvalid: a file of that name is there already, or cannot be written.
    """
    private, public = key_files(directory)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if private.exists() and not public.exists():
            raise KeyFileInvalid(
                f"{private} is there without {public}: an earlier run was interrupted. If no log was begun with that "
                f"key, remove {private} and run again; else copy the file of public keys back"
            )
        if public.exists():
            raise KeyFileInvalid(f"{public} exists already: keys are never overwritten; `mediasieve audit rotate`")
        signer = Signer.generate(name)
        signer.save(private)
        KeySet([signer.verifier]).save(public)
    except OSError as error:
        raise KeyFileInvalid(f"cannot write keys into {directory}: {error.strerror}") from error
    return private, public


def rotate(place: LogPlace, new_private: Path, *, stolen: bool = False) -> list[Checkpoint]:
    """Hand every tree over to a next key, and retire the one in use at exactly these checkpoints.

    First both keys are trusted; then each tree's checkpoint is signed anew, by compare-and-swap, so that a worker that
    still runs with the old key is superseded, also in a tree without leaves; then the old key is retired. Trees that
    were begun meanwhile follow. A worker that reads this file of public keys begins none after that; one that reads a
    copy of it must be stopped before. Run it again with the same file if it was interrupted before the old key was
    retired.

    Args:
        place: of the log; its settings name the private key in use and the file of public keys, which is replaced.
        new_private: where the next private key is written; one that is there is taken.
        stolen: the key in use is in other hands: trust it for nothing but these very checkpoints. Compare them with
            kept ones first.

    Returns:
        The checkpoints, one for each tree.

    Raises:
        Untrusted, LogCorrupt, KeyFileInvalid, LogUnavailable, SettingsInvalid: see the log; nothing is retired.
        Superseded: a worker appended at that moment: run it again.
    """
    old, keys = place.signer(), place.keys()
    path = place.settings.public_keys
    if not new_private.exists():
        Signer.generate(place.settings.log_name).save(new_private)
    new = Signer.load(place.settings.log_name, new_private)
    if new.verifier == old.verifier:
        raise KeyFileInvalid(f"{new_private} is the key in use: name another file")
    if not keys.in_use(old.verifier):
        raise KeyFileInvalid(f"{place.settings.private_key} is no key in use of {path}: it was rotated already")
    if keys.find(new.verifier.name, new.verifier.key_id) is None:
        keys = keys.adding(new.verifier)
        keys.save(_given(path))
    heads: dict[str, Checkpoint] = {}
    retired = False
    while (begun := [tree for tree in place.trees() if tree not in heads]) or not retired:
        heads |= {tree: _sign_anew(place, tree, new, keys) for tree in begun}
        keys.retire(old.verifier, list(heads.values()), stolen=stolen).save(_given(path))
        retired = True
    return list(heads.values())


def _sign_anew(place: LogPlace, tree: str, new: Signer, keys: KeySet) -> Checkpoint:
    stored = place.tree(tree).read_checkpoint()
    if stored is None:
        raise KeyFileInvalid(f"{place.origin(tree)} lost its checkpoint while keys were rotated: restore the log")
    note, token = stored
    head = open_checkpoint(note, keys, place.origin(tree))
    signed = sign_checkpoint(head, new)
    if signed != note:
        place.reader(tree, keys).checkpoint()  # also checks that it continues the trees at which keys were retired
        place.tree(tree).swap_checkpoint(signed, token)
    return head


def _given(path: Path | None) -> Path:
    if path is None:
        raise KeyFileInvalid("MEDIASIEVE_AUDIT__PUBLIC_KEYS names no file")
    return path
