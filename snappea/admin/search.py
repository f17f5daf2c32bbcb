"""The search box: a text such as `state:failed task:charge args.order:77 age:>1h`, and the tasks it finds."""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from django.core.exceptions import EmptyResultSet
from django.db import OperationalError, transaction
from django.db.models import Q, QuerySet
from django.db.models.expressions import RawSQL
from django.utils import timezone
from django.utils.translation import gettext as _

from ..models import Status, Task
from ..monitoring import inspect
from ..monitoring.formatting import positional
from ..monitoring.task_log import containing
from ..queue.batches import FAMILY_OF
from ..queue.database import connect
from ..queue.states import KEPT
from ..tasks.function import registry
from .arguments import has

#: How long a page searches, in seconds; if the user asks for all; and a task's page, for each neighbor.
SECONDS, LONGEST, MOMENT = 0.2, 30.0, 0.1
#: How many ids before and after a ready task to look at first.
NEAR = 1000
#: Where a page stops counting what a search finds.
MOST = 10_000
MOST_CHARACTERS, MOST_TERMS = 1000, 30
_TERM = re.compile(r'(?:(?P<key>[A-Za-z_]+|args\.[^\s":]+):)?(?P<value>"(?:[^"\\]|\\.)*"|[^\s"]\S*|"\S*)')
_SPAN = re.compile(r"([<>])(\d{1,6}(?:\.\d{1,6})?)([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class SearchError(ValueError):
    """A search text has an invalid term. The message says what is allowed."""


class Found(NamedTuple):
    """The ids that a search found, in its order. `is_all`: whether it looked at all tasks."""

    ids: list[int]
    is_all: bool


class Search:
    """A search text. `at`: the moment that ages count from; None: now. Raises SearchError.

    >>> Search('state:failed task:charge "card declined"').tasks()
    """

    def __init__(self, text: str = "", at: datetime | None = None) -> None:
        text = text.replace("\0", "").encode(errors="replace").decode()
        self.terms = [_read(match) for match in _TERM.finditer(text)]
        if len(text) > MOST_CHARACTERS or len(self.terms) > MOST_TERMS:
            raise SearchError(
                _("A search has at most %(characters)d characters and %(terms)d terms.")
                % {"characters": MOST_CHARACTERS, "terms": MOST_TERMS}
            )
        self.terms = [(key, _state(value) if key == "state" else value) for key, value in self.terms]
        states = {value for key, value in self.terms if key == "state"}
        if len(states) > 1:
            raise SearchError(_("A search has one state at most."))
        #: The state of all that it finds; None: any state.
        self.state: Status | None = Status(states.pop()) if states else None
        if self.state is None and not {"exception", "place"}.isdisjoint(key for key, _value in self.terms):
            self.state = Status.FAILED
        self._conditions = [
            _condition(key, value, at) for key, value in self.terms if key not in ("state", "#")
        ]
        if numbers := [int(value) for key, value in self.terms if key == "#"]:
            self._conditions.append(Q(pk__in=numbers))

    @property
    def text(self) -> str:
        """The search as normalized text."""
        return " ".join(spelled(key, value) for key, value in self.terms)

    @property
    def is_plain(self) -> bool:
        """Whether it is for a state or for everything, so that an index can count what it finds."""
        return not self._conditions

    def value(self, key: str) -> str | None:
        """Return the value of a key such as "queue"."""
        return dict(self.terms).get(key)

    def with_term(self, key: str, value: str | None) -> "Search":
        """Return a search in which a key has another value; None: in which the key is absent."""
        changed = [term for term in self.terms if term[0] != key] + [(key, value)] * (value is not None)
        return Search(" ".join(spelled(*term) for term in changed))

    def tasks(self) -> QuerySet[Task]:
        """Return what it finds, in no order. Partial indexes find a state, the logbook running tasks."""
        found = Task.objects.all()
        if self.state is not None:
            is_member = self.value("batch") is not None  # which has an index of its own
            found = found.filter(status=self.state) if is_member else inspect.in_state(found, self.state)
        if (exception := self.value("exception")) is not None:
            found = inspect.raised(found, exception)
        return found.filter(*self._conditions)

    def ready_near(self, pk: int, is_before: bool) -> int | None:
        """Return the ready task before or after one, if it is near: no index has their order."""
        span = (pk - NEAR, pk - 1) if is_before else (pk + 1, pk + NEAR)
        found = Task.objects.filter(*self._conditions, status=Status.READY, pk__range=span)
        return found.order_by("-pk" if is_before else "pk").values_list("pk", flat=True).first()

    @property
    def column(self) -> str:
        """The column by which an index orders what it finds."""
        return (
            "run_after" if self.state == Status.SCHEDULED else "finished_at" if self.state in KEPT else "pk"
        )

    def ordered(self, is_reversed: bool = False) -> QuerySet[Task]:
        """Return what it finds: waiting and running tasks in order, others the newest first."""
        is_falling = (self.state is None or self.state in KEPT) != is_reversed
        columns = dict.fromkeys((self.column, "pk"))
        return self.tasks().order_by(*(f"-{column}" if is_falling else column for column in columns))


def scan(tasks: QuerySet[Task], most: int = MOST + 1, seconds: float = SECONDS) -> Found:
    """Return the ids of the first tasks: at most so many, found within a time."""
    ids: list[int] = []
    end = time.monotonic() + seconds
    try:
        query = tasks.values_list("pk")[:most].query
        sql, parameters = query.get_compiler(connect().alias).as_sql()
        with _ends(seconds), connect().chunked_cursor() as cursor:
            cursor.execute(sql, parameters)
            rows = (pk for (pk,) in cursor)
            for pk in rows:
                ids.append(pk)
                ids.extend(islice(rows, 999))
                if time.monotonic() >= end:  # PostgreSQL limits the time of each chunk
                    return Found(ids, False)
    except EmptyResultSet:
        pass
    except OperationalError:
        if time.monotonic() < end:
            raise
        return Found(ids, False)
    return Found(ids, len(ids) < most)


@contextmanager
def _ends(seconds: float) -> Iterator[None]:
    """Make a long query of the block end with OperationalError."""
    connection = connect()
    if connection.vendor != "sqlite":
        limit = "SELECT set_config('statement_timeout', %s, true)"
        with transaction.atomic(connection.alias), connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('statement_timeout')")
            before = cursor.fetchone()
            cursor.execute(limit, [str(max(1, int(seconds * 1000)))])
            yield
            cursor.execute(limit, before)  # a transaction may be open that continues
        return
    connection.ensure_connection()
    db, end = connection.connection, time.monotonic() + seconds
    db.set_progress_handler(lambda: time.monotonic() >= end, 10_000)
    try:
        yield
    finally:
        db.set_progress_handler(None, 0)


def neighbours(search: Search, task: Task) -> tuple[int | None, int | None]:
    """Return the ids of the tasks before and after one in the list; None if there is none nearby."""
    value = getattr(task, search.column)
    before, after = (_next(search, is_reversed, task.pk, value) for is_reversed in (True, False))
    return before, after


def _next(search: Search, is_reversed: bool, pk: int, value: Any) -> int | None:
    if search.state == Status.READY and (near := search.ready_near(pk, is_reversed)) is not None:
        return near
    tasks = search.ordered(is_reversed)
    sign = "lt" if str(tasks.query.order_by[0]).startswith("-") else "gt"
    if search.column == "pk" or value is None:  # it has left the list
        tasks = tasks.filter(**{f"pk__{sign}": pk}).order_by(tasks.query.order_by[-1])
    else:
        tasks = tasks.filter(**{f"{search.column}__{sign}e": value})
        tasks = tasks.exclude(**{f"pk__{'gt' if sign == 'lt' else 'lt'}e": pk, search.column: value})
    return next(iter(scan(tasks, 1, MOMENT).ids), None)


def _read(match: "re.Match[str]") -> tuple[str, str]:
    """Return a term's key and value. The key of a word is "", and that of `#123` is "#"."""
    key, value = match["key"] or "", match["value"]
    if value.startswith('"'):
        return key, re.sub(r"\\(.)", r"\1", value[1:-1]) if re.fullmatch(
            r'"(?:[^"\\]|\\.)*"', value
        ) else value[1:]
    return ("#", value[1:]) if not key and re.fullmatch("#[0-9]{1,18}", value) else (key, value)


def spelled(key: str, value: str) -> str:
    """Return a term as it is written, in quotes where necessary."""
    if key == "#":
        return f"#{value}"
    text = f"{key}:{value}" if key else value
    match = _TERM.fullmatch(text)
    is_plain = match is not None and '"' not in value and _read(match) == (key, value)
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return text if is_plain else f'{key}:"{quoted}"' if key else f'"{quoted}"'


def _condition(key: str, value: str, at: datetime | None) -> Q:
    """Return the condition of a term. Sensitive tasks are not found by what only they know."""
    name = key[5:] if key.startswith("args.") else ""
    if not name and key not in CONDITIONS.keys() | AGES.keys():
        raise SearchError(
            _(
                "There is no key “%(key)s”. The keys are: state, task, queue, tag, batch, exception, place, "
                "error, log, args.NAME, age, ended. To search for a text with a colon, put it in double "
                "quotes."
            )
            % {"key": key}
        )
    if key in AGES:
        return _since(AGES[key], value, at or timezone.now())
    return _argument(name, value) if name else CONDITIONS[key](value)


def _state(text: str) -> str:
    for status in Status:
        if text.lower() in (status.value, status.name.lower(), str(status.label).lower()):
            return status.value
    names = ", ".join(status.value for status in Status)
    raise SearchError(
        _("There is no state “%(state)s”. The states are: %(names)s.") % {"state": text, "names": names}
    )


def _word(text: str) -> Q:
    encoded = {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    texts = Q(error__icontains=text)
    for spelling in sorted(encoded):
        texts |= Q(args__icontains=spelling) | Q(kwargs__icontains=spelling)
    found = Q(task_name__icontains=text) | (texts & _shown())
    return found | Q(pk=int(text)) if re.fullmatch("[0-9]{1,18}", text) else found


def _shown() -> Q:
    hidden = [name for name, task in registry.items() if task.options.sensitive]
    return Q(is_sensitive=False) & ~Q(task_name__in=hidden)


def _name(text: str) -> Q:
    """Find tasks by their full name, or by its last part."""
    return Q(task_name=text) if "." in text else Q(task_name=text) | Q(task_name__endswith=f".{text}")


def _batch(text: str) -> Q:
    """Find the members of a batch and of the batches in it."""
    if not re.fullmatch("[0-9]{1,18}", text):
        raise SearchError(_("“%(text)s” is not the number of a batch.") % {"text": text})
    return Q(batch_id__in=RawSQL(FAMILY_OF.replace("?", "%s"), (int(text),)))


def _since(column: str, text: str, at: datetime) -> Q:
    match = _SPAN.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        moment = at - timedelta(seconds=float(match[2]) * _UNITS[match[3]])
    except (ValueError, OverflowError):
        allowed = _("“%(text)s” is not an age. Write < or >, a number, and s, m, h or d: >1h, <30m.")
        raise SearchError(allowed % {"text": text}) from None
    return Q(**{f"{column}__{'lt' if match[1] == '>' else 'gt'}": moment})


def _argument(name: str, value: str) -> Q:
    """Find calls by the value of an argument: named, or in the place that the function's parameter has."""
    certain = max(re.findall("[0-9A-Za-z]+", value), key=len, default="")  # the same in each encoding
    found, places = has("kwargs", name, value, certain), dict[int, list[str]]()
    for task_name, task in registry.items():
        if name in (names := positional(task.signature)):
            places.setdefault(names.index(name), []).append(task_name)
    for place, task_names in places.items():
        found |= has("args", place, value, certain) & Q(task_name__in=task_names)
    maybe = Q(kwargs__contains=certain) | Q(args__contains=certain)  # twice as fast
    return maybe & found & _shown()


CONDITIONS: dict[str, Callable[[str], Q]] = {
    "": _word,
    "task": _name,
    "queue": lambda text: Q(queue=text),
    "exception": lambda text: Q(exception=text),
    "place": lambda text: Q(place=text),
    "error": lambda text: Q(error__icontains=text) & _shown(),
    "batch": _batch,
    "tag": lambda text: Q(tags__contains=f" {text} "),
    "log": lambda text: containing(text) & _shown(),
}
#: The column of each key that takes an age.
AGES = {"age": "enqueued_at", "ended": "finished_at"}
