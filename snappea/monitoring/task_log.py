"""Read what a task has logged, if it keeps its log."""

import json
from datetime import datetime
from typing import NamedTuple

from django.db.models import Q

from ..models import Task
from ..queue.clock import as_datetime, as_local
from ..queue.records import LEFT_OUT
from ..tasks.discovery import find
from ..tasks.function import is_sensitive
from .formatting import plain


class Record(NamedTuple):
    """A record of a task's log, with the number of the attempt; or how many are `left_out` here."""

    attempt: int = 0
    at: datetime | None = None
    level: str = ""
    logger: str = ""
    message: str = ""
    left_out: int = 0

    @property
    def clock(self) -> str:
        """The time of day in the current time zone, to the millisecond."""
        return f"{as_local(self.at):%H:%M:%S.%f}"[:-3] if self.at else ""


def records(task: Task) -> list[Record]:
    """Return what a task has logged, oldest first, as plain text; nothing if it is sensitive.

    Lines that were written by hand and are invalid are skipped.
    """
    if not task.log or is_sensitive(task, find(task.task_name)):
        return []
    ends = [(f"{error.get('at')}", error.get("attempt")) for error in task.attempt_errors()]
    found: list[Record] = []
    numbers: dict[int, int] = {}  # the attempt of each claim
    for line in task.log.split("\n"):
        try:
            if LEFT_OUT(line):
                found.append(Record(left_out=int(line)))
                continue
            claims, at, *said = json.loads(line)
            level, logger, message = (plain(f"{word}") for word in said)
            if claims not in numbers:
                ended = [number for end, number in ends if end < at and isinstance(number, int)]
                numbers[claims] = 1 + max([0, *ended, *numbers.values()])
            found.append(Record(numbers[claims], as_datetime(at), level, logger, message))
        except (TypeError, ValueError, RecursionError):
            continue
    return found


def containing(text: str) -> Q:
    """Return the condition that the log of a task contains a text. It does not exclude sensitive tasks."""
    return Q(log__icontains=json.dumps(text, ensure_ascii=False)[1:-1])
