"""Format values for people, as plain text in which hostile values do no harm.

These functions return text, never markup. The templates escape it.
"""

import json
import re
import unicodedata
from datetime import datetime
from inspect import Parameter
from typing import Any, NamedTuple

from ..errors import UnreadableArguments
from ..log import clean
from ..models import Task
from ..queue.clock import as_local
from ..tasks.arguments import decode
from ..tasks.discovery import find
from ..tasks.function import TaskFunction, is_sensitive

#: How much a page shows of an argument, a result or a note, in characters.
MOST = 20_000
#: Stands for a missing value.
NOTHING = "—"
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def plain(text: str) -> str:
    """Return a text with invisible characters and direction marks escaped, but not its line breaks."""
    if not isinstance(text, str) or text.isprintable():
        return clean(text)
    kept = "\n\t"
    return "".join(
        char if char in kept or unicodedata.category(char) == "Zs" else clean(char) for char in text
    )


def one_line(text: str, most: int = 160) -> str:
    """Return the last line of an error, truncated."""
    line = plain(text[-MOST:].strip().rpartition("\n")[2].strip())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def duration(seconds: float | None) -> str:
    """Return a duration in one or two units: "12 ms", "3.4 s", "2 min 5 s", "3 d 4 h"."""
    if seconds is None:
        return NOTHING
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.00095 else f"{seconds * 1000:.1g} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    rest, parts = round(seconds), []
    for unit, size in _UNITS:
        amount, rest = divmod(rest, size)
        parts.append(f"{amount:,} {unit}" if amount else "")
    first = next(index for index, part in enumerate(parts) if part)
    return " ".join(part for part in parts[first : first + 2] if part)


def exact(moment: datetime) -> str:
    """Return a time to the second, in the site's time zone."""
    return f"{as_local(moment):%Y-%m-%d %H:%M:%S}"


def number(value: float | None) -> str:
    """Return a whole number with thousands separators."""
    return NOTHING if value is None else f"{value:,.0f}"


def size(count: int) -> str:
    """Return an amount of memory, such as "44 MB"."""
    return f"{count / 1024**2:,.0f} MB" if count else "unknown"


def pretty(encoded: str | None) -> str:
    """Return indented JSON; other text as it is."""
    if encoded is None:
        return ""
    try:
        text = json.dumps(json.loads(encoded[:MOST]), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = encoded
    return cut(plain(text))


def named_arguments(row: Task) -> list[tuple[str, str]]:
    """Return the name and the JSON of each argument of a call; nothing if the task is sensitive.

    Positional arguments have the names of the function's parameters. Those without a parameter are a list
    named "*args". Arguments that are not JSON are returned unchanged, as "args" and "kwargs".
    """
    task = find(row.task_name)
    if is_sensitive(row, task):
        return []
    try:
        args, kwargs = decode(row.args, row.kwargs)
        names = _positional(task, args, kwargs)
        found = [*zip(names, args, strict=False), *kwargs.items()]
        if rest := args[len(names) :]:
            found.insert(len(names), ("*args", rest))
        return [(name, json.dumps(value, ensure_ascii=False)) for name, value in found]
    except (UnreadableArguments, RecursionError):
        return [("args", row.args), ("kwargs", row.kwargs)]


def _positional(task: TaskFunction[..., Any] | None, args: list[Any], kwargs: dict[str, Any]) -> list[str]:
    kinds = Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD
    parameters = task.spelling(tuple(args), kwargs).parameters.values() if task else ()
    return [one.name for one in parameters if one.kind in kinds]


def cut(text: str) -> str:
    """Return the beginning of a long text, and how much is omitted."""
    left = len(text) - MOST
    return text if left <= 0 else f"{text[:MOST]}\n… {left:,} characters left out"


class Line(NamedTuple):
    """A line of a traceback; `kind` is "place", "code" or "error"."""

    kind: str
    text: str


_PLACE = re.compile(
    r'[\s|+-]*File ".*", line \d+|Traceback \(most recent call last\):'
    r"|During handling of the above exception|The above exception was|and then:"
)


def traceback_lines(text: str) -> list[Line]:
    """Return the lines of a traceback with their kinds."""
    found: list[Line] = []
    for line in cut(plain(text)).splitlines():
        if _PLACE.match(line):
            kind = "place"
        else:
            kind = "code" if line.startswith(("    ", "  |")) and found else "error"
        found.append(Line(kind, line))
    return found
