"""The searches of docs/siem.md, and the names in them that are neither words of their language nor made by them.

No parser: strings and numbers go, words of the language go, names that the search itself makes go; the rest must be
fields, and a test holds them against golden files. A new word of a language has to be added here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/siem.md"
LANGUAGES = ("spl", "kql", "esql")

_SPL = """
dedup rename fillnull value stats count eval sort where spath output path table as by and or not if earliest index
sourcetype isnotnull isnull mvfind round now relative_time min max sum avg values
"""
_KQL = """
where ago and or not summarize arg_max by count countif extend round order desc asc min max avg make_set take_any
set_has_element datetime_diff now project
"""
_ESQL = """
from where now hours hour days and or not eval case stats count sum avg min max values by round sort desc asc keep
to_double
"""
WORDS = {"spl": set(_SPL.split()), "kql": set(_KQL.split()), "esql": set(_ESQL.split())}
_STRING = re.compile(r"\"[^\"]*\"")
_SPAN = re.compile(r"\b\d+[dh]?\b")
_MADE = {
    "spl": re.compile(r"\bAS (\w+)|\beval (\w+)=|,\s+(\w+)=(?!=)|\boutput=(\w+)"),
    "kql": re.compile(r"(\w+) = "),
    "esql": re.compile(r"(\w+) = "),
}
_NAME = {
    "spl": re.compile(r"[A-Za-z_][\w.]*(?:\{\}[\w.]*)*"),
    "kql": re.compile(r"[A-Za-z_]\w*"),
    "esql": re.compile(r"[@A-Za-z_][\w.]*"),
}


@dataclass(frozen=True)
class Search:
    """One search in one language; `title` is the heading that it stands under."""

    title: str
    language: str
    text: str

    @property
    def dead_letters(self) -> bool:
        """Whether it looks at dead letters, not at findings."""
        return "deadletter" in self.text.lower()

    def fields(self) -> set[str]:
        """Every name that has to exist in an event."""
        bare = _SPAN.sub(" ", _STRING.sub(" ", re.sub(r"^FROM \S+|^\w+_CL$|^index=\w+", " ", self.text, flags=re.M)))
        made = {name for match in _MADE[self.language].finditer(bare) for name in match.groups() if name}
        names = set(_NAME[self.language].findall(bare))
        return {name for name in names if name.lower() not in WORDS[self.language] and name not in made}


def searches() -> list[Search]:
    """All searches of the page, in its order."""
    found, title = [], ""
    for part in re.split(r"(?m)^(#+ .+|```\w+\n(?:.*\n)*?```)$", PAGE.read_text(encoding="utf-8")):
        if part.startswith("#"):
            title = part.lstrip("# ")
        fence = re.match(r"```(\w+)\n(.*)```", part, re.DOTALL)
        if fence and fence[1] in LANGUAGES:
            found.append(Search(title, fence[1], fence[2]))
    return found
