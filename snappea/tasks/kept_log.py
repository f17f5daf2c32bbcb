"""What running tasks log, if they keep it (`keep_log`), until the Foreman writes it to their rows.

Without locks: signal handlers log as well, and a time limit may end a task anywhere in here.
"""

import copy
import itertools
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from ..conf import shown
from ..log import ENDINGS, handlers_of, shortened, storable
from ..queue.clock import as_text
from ..queue.files import at_fork
from ..queue.records import MOST_LINES, Claim, Fence
from .context import current_claim
from .function import TaskFunction, is_sensitive

#: The longest message that is kept, in characters, and the longest line that a child process may send.
MAX_MESSAGE, MAX_LINE = 4000, 30_000
_encode = json.JSONEncoder(ensure_ascii=False).encode
_format = logging.Formatter().format


class _Lines:
    """The lines of a run that were not taken yet: its first ones, and the latest."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._left_out = 0  # since the last take()
        self._first: deque[str] = deque()
        self._latest: deque[str] = deque(maxlen=MOST_LINES // 2)

    def add(self, line: str) -> None:
        if next(self._numbers) <= MOST_LINES // 2:
            self._first.append(line)
        else:
            self._left_out += len(self._latest) == self._latest.maxlen  # append() drops the oldest
            self._latest.append(line)

    def take(self) -> list[str]:
        """Return the lines, once. A number between them counts those that are left out."""
        left_out, self._left_out = self._left_out, 0
        first, latest = ([some.popleft() for _ in range(len(some))] for some in (self._first, self._latest))
        return [*first, *([str(left_out)] if left_out else []), *latest]


#: The tasks that keep their log and run, and those of them with lines that were not taken yet.
open_logs: dict[Fence, _Lines] = {}
unwritten_logs: dict[Fence, _Lines] = {}
at_fork(after_in_child=open_logs.clear)  # the task runs in the parent


class Keeper(logging.NullHandler):
    """Keeps each record that is made in a task. NullHandler, because it has no lock and shows nothing."""

    #: Called after each record, in a process that is not the Foreman.
    send: Callable[[], None] | None = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Keep a record. Print it where it would be printed without this handler."""
        claim = current_claim()
        lines = claim and open_logs.get(claim.fence)
        if claim and lines and not f"{record.name}.".startswith("snappea."):  # those are about the task
            lines.add(_line(claim, record))
            unwritten_logs[claim.fence] = lines
            if self.send:
                self.send()
        last = logging.lastResort
        if last and record.levelno >= last.level and [*handlers_of(logging.getLogger(record.name))] == [self]:
            last.handle(record)
        return True


keeper = Keeper()


def _line(claim: Claim, record: logging.LogRecord) -> str:
    """Return a record as a line of JSON: `claims` of its row, time, level, logger, message."""
    try:
        message = _format(copy.copy(record))
    except ENDINGS:
        raise
    except Exception as error:  # arguments that do not fit, a __str__ that raises
        message = f"{shown(record.msg)} {shown(record.args)} ({type(error).__name__} while it was formatted)"
    moment = as_text(datetime.fromtimestamp(record.created, UTC))
    parts = f"{record.levelname}"[:50], f"{record.name}"[:200], shortened(message, MAX_MESSAGE)
    return _encode([claim.claims, moment, *map(storable, parts)])


def keep(claim: Claim, task: TaskFunction[..., Any]) -> None:
    """Keep what a task logs from now on, unless it is sensitive or has no row."""
    if claim.started_at is not None and not is_sensitive(claim, task):
        if keeper not in logging.root.handlers:
            logging.root.addHandler(keeper)
        open_logs[claim.fence] = _Lines()


def keep_lines(claim: Claim, lines: Iterable[object]) -> None:
    """Keep lines from a child process. The task itself may have written them."""
    unwritten_logs[claim.fence] = log = open_logs.setdefault(claim.fence, _Lines())
    for line in lines:
        log.add(storable(f"{line}"[:MAX_LINE]).replace("\n", " "))


def take_log(fence: Fence, closes: bool = False) -> list[str]:
    """Return the new lines of a run, once. `closes`: drop what is logged later."""
    if closes:
        open_logs.pop(fence, None)
    lines = unwritten_logs.pop(fence, None)
    return lines.take() if lines else []
