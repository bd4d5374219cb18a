"""Reads Logstash's configuration language as far as ours uses it, into plain values.

https://www.elastic.co/docs/reference/logstash/configuration-file-structure
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<text>"(?:[^"\\]|\\.)*")|(?P<mark>=>|[{}\[\],])|(?P<word>[\w@.\-+]+|==|!=|=~)"""
)


@dataclass
class Block:
    """A plugin, section or condition: its options, and the blocks inside in order."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)

    def all(self, name: str) -> list[Block]:
        """Every block of that name, at any depth."""
        found = [block for block in self.blocks if block.name == name]
        return found + [inner for block in self.blocks for inner in block.all(name)]


def read_logstash(text: str) -> Block:
    """Raises ValueError where the text is not balanced or holds what the language does not have."""
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"unexpected {text[at : at + 20]!r} at {at}")
        if match.lastgroup:
            tokens.append(match.group())
        at = match.end()
    return _Reader(tokens).body("file", last=True)


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self._at = tokens, 0

    def body(self, name: str, *, last: bool = False) -> Block:
        block = Block(name)
        while (token := self._next(end_allowed=last)) not in ("}", None):
            if self._peek() == "=>":
                self._at += 1
                block.options[_plain(token)] = self._value()
                continue
            while self._peek() != "{":  # a condition
                self._next()
            self._at += 1
            block.blocks.append(self.body(token))
        if (token is None) != last:
            raise ValueError(f"{name}: braces do not balance")
        return block

    def _value(self) -> Any:
        token = self._next()
        if token == "[":
            return self._list()
        if token == "{":
            return self._hash()
        if self._peek() == "{":  # a codec with options
            self._at += 1
            return self.body(token or "")
        return _plain(token)

    def _list(self) -> list[Any]:
        found: list[Any] = []
        while (token := self._next()) != "]":
            if token != ",":
                found.append(_plain(token))
        return found

    def _hash(self) -> dict[str, Any]:
        found = {}
        while (token := self._next()) != "}":
            if self._next() != "=>":
                raise ValueError(f"{token}: expected =>")
            found[_plain(token)] = self._value()
        return found

    def _peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self, *, end_allowed: bool = False) -> Any:
        token = self._peek()
        if token is None and not end_allowed:
            raise ValueError("the text ends inside a block")
        self._at += 1
        return token


def _plain(token: Any) -> Any:
    if token is None:
        raise ValueError("a value is missing")
    if token.startswith('"'):
        return token[1:-1]
    return {"true": True, "false": False}.get(token, int(token) if token.isdigit() else token)
