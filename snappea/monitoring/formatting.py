"""How values are put to people: in words, on one line, and so that hostile ones do no harm.

What is returned is text, never markup: the templates escape it.
"""

import json
import re
import unicodedata
from datetime import datetime
from typing import NamedTuple

from ..queue.clock import as_local

#: The most that a page shows of an argument, a result or a note, in characters.
MOST = 20_000
#: Instead of what there is not.
NOTHING = "—"
_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


def plain(text: str) -> str:
    """Return a text in which no character is invisible or turns the others around; lines stay lines.

    Control characters, marks of direction and the like are written as "\\\\u202e"; what is no text,
    because somebody wrote the row by hand, as Python writes it.
    """
    if not isinstance(text, str):
        return repr(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_harmless(character) else _escape(character) for character in text)


def _is_harmless(character: str) -> bool:
    if character in "\n\t" or character.isprintable():
        return True
    return unicodedata.category(character) == "Zs"  # a space of another width


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def one_line(text: str, most: int = 160) -> str:
    """Return the last line of an error, or what fits of it."""
    line = plain(text[-MOST:].strip().rpartition("\n")[2].strip())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def duration(seconds: float | None) -> str:
    """Return a span of time in one or two units: "12 ms", "3.4 s", "2 min 5 s", "3 d 4 h"."""
    if seconds is None:
        return NOTHING
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.00095 else f"{seconds * 1000:.1g} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    rest = round(seconds)
    parts = []
    for unit, size in (*_UNITS, ("s", 1)):
        amount, rest = divmod(rest, size)
        parts.append(f"{amount:,} {unit}" if amount else "")
    first = next(index for index, part in enumerate(parts) if part)
    return " ".join(part for part in parts[first : first + 2] if part)


def exact(moment: datetime) -> str:
    """Return a time to the second, in the time zone of the site."""
    return f"{as_local(moment):%Y-%m-%d %H:%M:%S}"


def number(value: float | None) -> str:
    """Return a whole number with marks between its thousands."""
    return NOTHING if value is None else f"{value:,.0f}"


def size(count: int) -> str:
    """Return an amount of memory: "44 MB"."""
    return f"{count / 1024**2:,.0f} MB" if count else "unknown"


def pretty(encoded: str | None) -> str:
    """Return JSON with a line for each part, if it is JSON; the text as it stands otherwise."""
    if encoded is None:
        return ""
    try:
        text = json.dumps(json.loads(encoded[:MOST]), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = encoded
    return cut(plain(text))


def cut(text: str) -> str:
    """Return what is shown of a long text, with a word on how much is left out."""
    left = len(text) - MOST
    return text if left <= 0 else f"{text[:MOST]}\n… {left:,} characters left out"


class Line(NamedTuple):
    """A line of a traceback; `kind` is "place", "code" or "error"."""

    kind: str
    text: str


_INTRODUCTIONS = (
    "Traceback (most recent call last):",
    "During handling of the above exception",
    "The above exception was",
    "and then:",
)
_PLACE = re.compile(r'[\s|+-]*File ".*", line \d+')


def traceback_lines(text: str) -> list[Line]:
    """Return the lines of a traceback, each with what it is."""
    found: list[Line] = []
    for line in cut(plain(text)).splitlines():
        if _PLACE.match(line):
            kind = "place"
        elif line.startswith(("    ", "  |")) and found:
            kind = "code"
        elif line.startswith(_INTRODUCTIONS):
            kind = "place"
        else:
            kind = "error"
        found.append(Line(kind, line))
    return found
