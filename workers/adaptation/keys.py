"""The keys of published references, from the settings."""

from __future__ import annotations

from pathlib import Path

from pipeline.evidence.log.errors import KeyFileInvalid
from pipeline.evidence.log.key_set import KeySet
from pipeline.evidence.log.signer import Signer
from pipeline.settings import SettingsInvalid
from workers.adaptation.settings import ReferenceSettings

PRIVATE_KEY = "references-private.pem"
PUBLIC_KEYS = "references-public-keys.json"


def load_keys(settings: ReferenceSettings) -> tuple[Signer, KeySet]:
    """The key that signs and those that are trusted, of which it must be one.

    Raises:
        SettingsInvalid: one is not named, cannot be used, or they do not belong together.
    """
    private = _named(settings.private_key, "PRIVATE_KEY", "the file of the key that signs references")
    keys = load_public_keys(settings)
    try:
        signer = Signer.load(settings.key_name, private)
    except KeyFileInvalid as error:
        raise SettingsInvalid(f"references: {error}; `mediasieve references keygen` makes keys") from error
    if not keys.in_use(signer.verifier):
        raise SettingsInvalid(
            f"MEDIASIEVE_REFERENCES__PUBLIC_KEYS: {settings.public_keys} does not hold {signer.verifier.vkey}, which "
            f"{private} signs with: no worker would follow"
        )
    return signer, keys


def load_public_keys(settings: ReferenceSettings) -> KeySet:
    """The keys that are trusted. Raises SettingsInvalid when no file is named or it cannot be used."""
    public = _named(settings.public_keys, "PUBLIC_KEYS", "the file of the public keys to trust")
    try:
        return KeySet.load(public)
    except KeyFileInvalid as error:
        raise SettingsInvalid(
            f"MEDIASIEVE_REFERENCES__PUBLIC_KEYS (in the file: references.public_keys): {error}"
        ) from error


def make_keys(directory: Path, name: str) -> tuple[Path, Path]:
    """A new pair in a directory, which is made: private key and file of public keys. Raises KeyFileInvalid."""
    private, public = directory / PRIVATE_KEY, directory / PUBLIC_KEYS
    if public.exists():
        raise KeyFileInvalid(f"{public} exists already: keys are never overwritten")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        signer = Signer.generate(name)
        signer.save(private)
        KeySet([signer.verifier]).save(public)
    except OSError as error:
        raise KeyFileInvalid(f"cannot write keys into {directory}: {error.strerror}") from error
    return private, public


def _named(path: Path | None, variable: str, what: str) -> Path:
    if path is None:
        raise SettingsInvalid(
            f"MEDIASIEVE_REFERENCES__{variable} (in the file: references.{variable.lower()}): name {what}; `mediasieve "
            "references keygen` makes one"
        )
    return path
