"""Sealed bytes come back or are refused; keys live, die and are wrapped anew as a simple model says."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipeline.media.envelope import Subject, seal, unseal
from pipeline.media.errors import ContentCorrupt, ContentErased, ContentMissing, StoreUnavailable
from pipeline.media.key_store import DataKey, KeyStore
from pipeline.media.master_keys import MasterKeys
from pipeline.media.objects import Objects

SECRET = bytes(range(32))
TENANTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,20}", fullmatch=True)


def subject(tenant: str, data: bytes) -> Subject:
    return Subject(tenant, hashlib.sha256(data).hexdigest())


@given(TENANTS, st.binary(max_size=4096), st.integers(0, 2**40))
def test_what_is_sealed_comes_back(tenant: str, data: bytes, generation: int) -> None:
    mine = subject(tenant, data)
    asked: list[int] = []

    def get_key(wanted: int) -> bytes:
        asked.append(wanted)
        return SECRET

    assert unseal(seal(mine, data, DataKey(generation, SECRET)), mine, "x", get_key) == data
    assert unseal(seal(mine, data, None), mine, "x", None) == data
    assert asked == [generation]


@settings(max_examples=300)
@given(st.binary(max_size=200), st.data(), st.booleans())
def test_a_change_of_any_bit_is_refused_or_changes_nothing(data: bytes, draw: st.DataObject, sealed: bool) -> None:
    mine = subject("acme", data)
    blob = bytearray(seal(mine, data, DataKey(0, SECRET) if sealed else None))
    bit = draw.draw(st.integers(0, 8 * len(blob) - 1))
    blob[bit // 8] ^= 1 << bit % 8
    try:
        assert unseal(bytes(blob), mine, "x", lambda _: SECRET) == data
    except (ContentCorrupt, StoreUnavailable):
        return


@given(st.binary(max_size=200), TENANTS, TENANTS)
def test_what_is_sealed_for_one_opens_for_no_other(data: bytes, tenant: str, other: str) -> None:
    assume(tenant != other)
    blob = seal(subject(tenant, data), data, DataKey(0, SECRET))
    with pytest.raises(ContentCorrupt):
        unseal(blob, subject(other, data), "x", lambda _: SECRET)


MASTERS = {"a": bytes(32), "b": bytes(range(32)), "c": bytes(range(1, 33))}
NAMES = st.tuples(st.sampled_from(["acme", "rival"]), st.sampled_from(["0" * 64, "1" * 64]))


class Keys(RuleBasedStateMachine):
    """Against a list of secrets for each name; None: destroyed."""

    def __init__(self) -> None:
        super().__init__()
        self.objects = Objects("memory://")
        self.current = "a"
        self.model: dict[tuple[str, str], list[bytes | None]] = defaultdict(list)

    @property
    def keys(self) -> KeyStore:
        return KeyStore(self.objects, MasterKeys(MASTERS, self.current))

    @rule(name=NAMES)
    def create(self, name: tuple[str, str]) -> None:
        key, secrets = self.keys.create(*name), self.model[name]
        if not secrets or secrets[-1] is None:
            assert key.secret not in [secret for others in self.model.values() for secret in others]
            secrets.append(key.secret)
        assert key == DataKey(len(secrets) - 1, secrets[-1] or b"")

    @rule(name=NAMES)
    def destroy(self, name: tuple[str, str]) -> None:
        secrets = self.model[name]
        assert self.keys.destroy(*name) == any(secret is not None for secret in secrets)
        self.model[name] = [None] * len(secrets)

    @rule(master=st.sampled_from(sorted(MASTERS)))
    def rotate(self, master: str) -> None:
        self.current = master

    @rule()
    def rewrap(self) -> None:
        done = self.keys.rewrap()
        live = sum(secret is not None for secrets in self.model.values() for secret in secrets)
        assert done.changed + done.current == live
        only = KeyStore(self.objects, MasterKeys({self.current: MASTERS[self.current]}, self.current))
        self.check(only)

    @invariant()
    def all_open_or_are_erased(self) -> None:
        self.check(self.keys)

    def check(self, keys: KeyStore) -> None:
        for name, secrets in self.model.items():
            state = "none" if not secrets else "destroyed" if secrets[-1] is None else "live"
            assert keys.state(*name) == state
            for generation, secret in enumerate(secrets):
                if secret is not None:
                    assert keys.get(*name, generation) == secret
                    continue
                with pytest.raises(ContentErased):
                    keys.get(*name, generation)
            with pytest.raises(ContentMissing):
                keys.get(*name, len(secrets))


TestKeys = Keys.TestCase
TestKeys.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
