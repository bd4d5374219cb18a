"""A reader of CEF lines, written from the standard's text alone, to hold the writer against."""

from __future__ import annotations

from dataclasses import dataclass

HEADER = ("version", "vendor", "product", "product_version", "class_id", "name", "severity")


@dataclass(frozen=True)
class CefEvent:
    """`header` by name; `extension` by key, with escapes undone."""

    header: dict[str, str]
    extension: dict[str, str]


def read_cef(line: str) -> CefEvent:
    """Raises ValueError where the line is not one."""
    if not line.startswith("CEF:") or any(end in line for end in "\n\r"):
        raise ValueError("no CEF line")
    fields, rest = _header(line.removeprefix("CEF:"))
    return CefEvent(dict(zip(HEADER, fields, strict=True)), _extension(rest))


def _header(text: str) -> tuple[list[str], str]:
    fields: list[str] = []
    now, at = "", 0
    while len(fields) < len(HEADER):
        if at == len(text):
            raise ValueError("the header ends too early")
        char = text[at]
        if char == "\\":
            if text[at + 1 : at + 2] not in ("\\", "|"):
                raise ValueError(f"unknown escape in the header at {at}")
            now, at = now + text[at + 1], at + 2
        elif char == "|":
            fields, now, at = [*fields, now], "", at + 1
        else:
            now, at = now + char, at + 1
    return fields, text[at:]


def _extension(text: str) -> dict[str, str]:
    equals = [at for at in range(len(text)) if text[at] == "=" and _backslashes_before(text, at) % 2 == 0]
    starts = [text.rfind(" ", 0, at) + 1 for at in equals]
    ends = [start - 1 for start in starts[1:]] + [len(text)]
    found = {}
    for start, equal, end in zip(starts, equals, ends, strict=True):
        key = text[start:equal]
        if not key.isalnum() or key in found:
            raise ValueError(f"bad or repeated key {key!r}")
        found[key] = _unescaped(text[equal + 1 : end])
    return found


def _backslashes_before(text: str, at: int) -> int:
    return at - len(text[:at].rstrip("\\"))


def _unescaped(value: str) -> str:
    plain, at = "", 0
    while at < len(value):
        if value[at] != "\\":
            plain, at = plain + value[at], at + 1
            continue
        following = value[at + 1 : at + 2]
        if following not in ("\\", "=", "n", "r"):
            raise ValueError(f"unknown escape {following!r}")
        plain, at = plain + {"n": "\n", "r": "\r"}.get(following, following), at + 2
    return plain
