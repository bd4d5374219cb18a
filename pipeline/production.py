"""What a fleet may not be told when `production` is set: each fault names its setting and the way out.

That evidence lies under Object Lock is asked of the store itself; see `pipeline.evidence.assembly`.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from pipeline.media.store_settings import StoreSettings

_OR = "or unset MEDIASIEVE_PRODUCTION to try things out"


def production_faults(store: StoreSettings) -> list[str]:
    """One line for each setting that must not go into production."""
    faults = []
    if _is_memory(store.url):
        faults.append(_fault("url", f"{store.url} ends with its process: name a bucket, {_OR}"))
    if store.keys is None:
        faults.append(
            _fault(
                "keys",
                "evidence must be encrypted, or it cannot be erased: set url, master_keys "
                f"(openssl rand -base64 32 > FILE) and current, {_OR}",
            )
        )
    elif _is_memory(store.keys.url):
        faults.append(_fault("keys.url", f"{store.keys.url} ends with its process, and all evidence with it: {_OR}"))
    elif _place(store.keys.url) == _place(store.url):
        faults.append(
            _fault(
                "keys.url",
                "lies where the evidence lies, so whatever keeps old versions or backups of the one brings destroyed "
                f"keys back: name a bucket or directory of its own, without versions and without Object Lock, {_OR}",
            )
        )
    return faults


def _fault(field: str, why: str) -> str:
    variable = f"MEDIASIEVE_STORE__{field.replace('.', '__').upper()}"
    return f"{variable} (in the file: store.{field}): {why}"


def _is_memory(url: str) -> bool:
    return urlsplit(url).scheme == "memory"


def _place(url: str) -> tuple[str, str]:
    """A bucket, or a directory: a bucket's versioning is for all of its prefixes."""
    split = urlsplit(url)
    return (split.scheme, split.path.rstrip("/") if split.scheme == "file" else split.netloc)
