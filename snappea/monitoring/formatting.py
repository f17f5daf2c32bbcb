"""Format values for people, as plain text in which hostile values do no harm.

These functions return text, never markup. The templates escape it.
"""

import json
import unicodedata
from datetime import datetime
from inspect import Parameter, Signature

from django.utils.formats import date_format, number_format
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from ..errors import UnreadableArguments
from ..log import clean
from ..models import Task
from ..queue.clock import as_local
from ..queue.dialects import told
from ..tasks.arguments import decode
from ..tasks.discovery import find
from ..tasks.function import is_sensitive

#: How much a page shows of an argument, a result or a note, in characters.
MOST = 20_000
#: Stands for a missing value.
NOTHING = "—"
_SIZES = {"d": 86400, "h": 3600, "min": 60, "s": 1}
#: Amounts of time by their unit.
UNITS = {
    "d": _("%(amount)s d"),
    "h": _("%(amount)s h"),
    "min": _("%(amount)s min"),
    "s": _("%(amount)s s"),
    "ms": _("%(amount)s ms"),
}


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


def duration(seconds: float | None, units: int = 2) -> str:
    """Return a duration in at most so many units: "12 ms", "3.4 s", "2 min 5 s", "3 d 4 h"."""
    if seconds is None:
        return NOTHING
    if seconds < 0.9995:
        return _amount("ms", seconds * 1000, 1 if 0 < seconds < 0.00095 else 0)
    if seconds < 59.95:
        return _amount("s", seconds, 1 if seconds < 9.95 else 0)
    rest, parts = round(seconds), []
    for unit, size in _SIZES.items():
        amount, rest = divmod(rest, size)
        parts.append(_amount(unit, amount) if amount else "")
    first = next(index for index, part in enumerate(parts) if part)
    return " ".join(part for part in parts[first : first + units] if part)


def _amount(unit: str, value: float, digits: int = 0) -> str:
    return UNITS[unit] % {"amount": number_format(round(value, digits), digits, force_grouping=True)}


def exact(moment: datetime) -> str:
    """Return a time to the second, in the site's time zone, as in ISO 8601."""
    return f"{as_local(moment):%Y-%m-%d %H:%M:%S}"


def when(moment: datetime) -> str:
    """Return a time to the second, in the current time zone, as the current language writes it."""
    here = as_local(moment)
    return f"{date_format(here, 'SHORT_DATE_FORMAT')} {date_format(here, 'H:i:s')}"


def number(value: float | None) -> str:
    """Return a whole number with the language's thousands separators."""
    return NOTHING if value is None else number_format(value, 0, force_grouping=True)


def capped(count: int) -> str:
    """Return a number of tasks, as `number()` does; "100,000+" if there are more."""
    return told(count, number)


def size(count: int) -> str:
    """Return an amount of memory, such as "44 MB"."""
    return _("%(amount)s MB") % {"amount": number(count / 1024**2)} if count else str(_("unknown"))


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
        names = positional(task.spelling(tuple(args), kwargs)) if task else []
        found = [*zip(names, args, strict=False), *kwargs.items()]
        if rest := args[len(names) :]:
            found.insert(len(names), ("*args", rest))
        return [(name, json.dumps(value, ensure_ascii=False)) for name, value in found]
    except (UnreadableArguments, RecursionError):
        return [("args", row.args), ("kwargs", row.kwargs)]


def positional(signature: Signature) -> list[str]:
    """Return the names of the parameters that arguments without a name go to, in their order."""
    kinds = Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD
    return [one.name for one in signature.parameters.values() if one.kind in kinds]


def cut(text: str) -> str:
    """Return the beginning of a long text, and how much is omitted."""
    left = len(text) - MOST
    if left <= 0:
        return text
    omitted = ngettext("%(count)s character is left out", "%(count)s characters are left out", left)
    return f"{text[:MOST]}\n… {omitted % {'count': number(left)}}"
