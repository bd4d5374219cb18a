"""Text of strangers, made safe to look at: what would steer a terminal or turn the reading order is written out."""

from __future__ import annotations

import unicodedata

_KEPT = frozenset("\n\t")
_WRITTEN_OUT = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_INVISIBLE = frozenset("\u115f\u1160\u3164\uffa0\u034f\u2800")
"""Letters and marks that show nothing, by which a name can hide a second part."""


def visible(text: str) -> str:
    """Every control, format, surrogate, private or unassigned character becomes `<U+202E>`; line feed and tab stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"<U+{ord(c):04X}>" if _hides(c) else c for c in text)


def on_one_line(text: str) -> str:
    """As `visible`, with line feeds and tabs written out too: text that cannot pass for lines of the page."""
    return visible(text).replace("\n", "<U+000A>").replace("\t", "<U+0009>")


def _hides(character: str) -> bool:
    if character in _KEPT:
        return False
    return character in _INVISIBLE or unicodedata.category(character) in _WRITTEN_OUT
