"""Calls that were enqueued while tests run: kept in memory, in the place of the table.

So that code which calls `delay()` can be tested without a database for it and without a Foreman.
`snappea.testing` is for looking at them and running them. Every test begins with none.
"""

import dataclasses
import functools
import json
import threading
from itertools import count
from typing import Any

from ..models import WAITING, Status, Task
from ..queue.clock import as_datetime, later, now
from ..queue.records import Call, Claim, Extras, Origin, Outcome

_NO_TERMS = Extras()
_lock = threading.RLock()  # a live server's threads enqueue as well
_ids = count(1)
_entries: "dict[int, Entry]" = {}


@dataclasses.dataclass
class Entry:
    """A call, and what a row would say of it. Times are as in the database."""

    id: int
    call: Call
    enqueued_at: str
    status: str
    run_after: str | None
    attempts: int = 0
    finished_at: str | None = None
    error: str = ""
    errors: str = ""
    result: str | None = None

    @property
    def extras(self) -> Extras:
        """What it has beside."""
        return self.call.extras or _NO_TERMS

    def as_task(self) -> Task:
        """Return the row that it would be; it is not in any database."""
        columns: dict[str, Any] = self.call._asdict() | self.extras._asdict() | dataclasses.asdict(self)
        for name in ("enqueued_at", "run_after", "expires_at", "finished_at"):
            columns[name] = columns[name] and as_datetime(columns[name])
        names = {field.name for field in Task._meta.fields}
        return Task(**{name: value for name, value in columns.items() if name in names})

    def as_claim(self) -> Claim:
        """Return what a worker would get."""
        call, extras = self.call, self.extras
        more = extras.result_ttl, extras.lane, extras.lane_interval, 0, extras.parent_id, extras.expires_at
        origin = Origin(extras.backend, extras.overrides, now(), None, "") if extras.backend else None
        return Claim(
            -call.priority,
            self.id,
            self.attempts,
            call.task_name,
            call.args,
            call.kwargs,
            call.queue,
            self.attempts,
            self.enqueued_at,
            bool(call.is_async),
            now(),
            json.dumps([*more, self.run_after, extras.is_sensitive, origin]),
        )


def add(call: Call) -> tuple[int, bool]:
    """Keep a call. Return its id, and whether it is new: False for a unique one that was kept before."""
    moment, extras = now(), call.extras or _NO_TERMS
    with _lock:
        _let_each_test_begin_with_none()
        if extras.unique_key and (same := _identical(extras.unique_key)):
            return same.id, False
        is_later = extras.run_after is not None and extras.run_after > moment
        status = Status.SCHEDULED if is_later else Status.READY
        entry = Entry(next(_ids), call, moment, status.value, extras.run_after)
        _entries[entry.id] = entry
    return entry.id, True


def _identical(key: str) -> Entry | None:
    for entry in _entries.values():
        if entry.extras.unique_key == key:
            is_alone = entry.extras.unique_running and entry.status == Status.RUNNING
            if is_alone or entry.status in WAITING:
                return entry
    return None


def find(task_id: int | None) -> Task | None:
    """Return what a row would be now; None if it would be gone."""
    with _lock:
        entry = _entries.get(task_id or 0)
        return entry.as_task() if entry else None


def waiting() -> list[Task]:
    """Return the calls that wait, in the order in which they were enqueued."""
    with _lock:
        return [entry.as_task() for entry in _entries.values() if entry.status in WAITING]


def cancel(task_id: int | None) -> bool:
    """Forget a call if it waits, and tell whether it did."""
    with _lock:
        entry = _entries.get(task_id or 0)
        if entry is None or entry.status not in WAITING:
            return False
        del _entries[entry.id]
        return True


def claim(ahead: bool) -> Claim | None:
    """Take the call that a Foreman would take first. `ahead`: if none is due, one of those due next."""
    moment = now()
    with _lock:
        for entry in list(_entries.values()):
            if entry.status in WAITING and (entry.extras.expires_at or "never") <= moment:
                del _entries[entry.id]
        chosen = _due(moment) or (_due(_next_due()) if ahead else [])
        if not chosen:
            return None
        first = min(chosen, key=lambda entry: (-entry.call.priority, entry.id))
        first.status, first.attempts = Status.RUNNING.value, first.attempts + 1
        return first.as_claim()


def _due(moment: str) -> list[Entry]:
    return [
        entry
        for entry in _entries.values()
        if entry.status == Status.READY
        or (entry.status == Status.SCHEDULED and (entry.run_after or "") <= moment)
    ]


def _next_due() -> str:
    scheduled = (entry for entry in _entries.values() if entry.status == Status.SCHEDULED)
    return min((entry.run_after or "" for entry in scheduled), default="")


def settle(outcome: Outcome) -> None:
    """Note what became of a call, as a Foreman would of a row."""
    moment = now()
    with _lock:
        entry = _entries.get(outcome.claim.id)
        if entry is None:  # the test has cleared them in the meantime
            return
        entry.error, entry.finished_at = outcome.error, moment
        if outcome.error:
            entry.errors += outcome.error_line(moment) + "\n"
        if not outcome.error and outcome.result is None:
            del _entries[entry.id]
        elif not outcome.error:
            entry.status, entry.result = Status.SUCCESSFUL.value, outcome.result
        elif outcome.retry_after is not None:
            entry.status, entry.finished_at = Status.SCHEDULED.value, None
            entry.run_after = later(moment, outcome.retry_after)
        else:
            entry.status = Status.FAILED.value


def clear() -> None:
    """Forget all of them."""
    with _lock:
        _entries.clear()


@functools.cache
def _let_each_test_begin_with_none() -> None:
    """Have each unittest.TestCase clear them before it runs, as Django does with `mail.outbox`.

    From the first call on; there is no other sign of a test's beginning, and nothing to do before.
    """
    import unittest  # here, as only tests need it

    run = unittest.TestCase.run

    @functools.wraps(run)
    def run_with_none(self: unittest.TestCase, result: Any = None) -> Any:
        clear()
        return run(self, result)

    unittest.TestCase.run = run_with_none  # type: ignore[method-assign]  # that is the point
