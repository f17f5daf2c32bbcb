"""Alerts (SNAPPEA["ALERT"]): what is wrong is told once, and again when it is over.

A process that enqueues looks for a Foreman; a task that runs each minute looks at the rest.
"""

import time
from collections.abc import Iterator
from logging import ERROR
from typing import Any

from asgiref.sync import sync_to_async
from django.core.mail import mail_admins
from django.db import transaction
from django.utils.module_loading import import_string

from ..conf import ALERT, collects, current
from ..errors import SoftTimeLimitExceeded
from ..log import clean, say, say_seldom
from ..queue.alerts import MOST, end, is_to_be_told, note_told, noted
from ..queue.database import connect
from ..queue.foremen import is_attended
from ..signals import task_enqueued
from ..stats import of_tasks
from ..tasks.function import task
from . import inspect

#: How often a process that enqueues looks for a Foreman at most, in seconds.
LOOK_EVERY = 5.0
#: How often the task looks at everything else, in seconds.
EVERY = 60.0
#: How long an alert may take, in seconds. If telling it fails, it is told again after this time.
PATIENCE = 30.0
NO_FOREMAN, BACKLOG = "no_foreman", "backlog"
_OVER = {NO_FOREMAN: "a Foreman runs again.", BACKLOG: "no task waits for too long any more."}
_look_at = 0.0


def register() -> None:
    """Look for a Foreman in each process that enqueues, and declare the task that looks for the rest."""
    task_enqueued.connect(_after_enqueue)
    again = task(
        priority=100,
        every=EVERY,
        expires=EVERY,
        unique="running",
        acks_late=True,
        soft_time_limit=PATIENCE,
        keep=0,
    )
    again(look)


def alert() -> dict[str, Any]:
    """Return SNAPPEA["ALERT"] with its defaults; empty if it is None."""
    configured = current().ALERT
    return {} if configured is None else ALERT | configured


async def look() -> None:
    """Tell what is wrong with the queue and what is over. On the event loop: all threads may be busy."""
    try:
        await sync_to_async(_look)()
    except SoftTimeLimitExceeded:
        say(ERROR, "An alert took longer than %g s. Snappea tries again in a minute.", PATIENCE)


def _look() -> None:
    wrong = dict(_troubles()) if alert() else {}
    for name, text in wrong.items():
        _note(name, text)
    for name, is_told in noted().items():
        text = f"Over: {_OVER.get(name, f'{name} no longer fails too often.')}"
        if name not in wrong and (not is_told or _tell(name, text, is_over=True)):
            end(name)


def _troubles() -> Iterator[tuple[str, str]]:
    """Yield what is wrong now, except that no Foreman runs: the name of the alert, and a sentence."""
    limit, failures = alert()["BACKLOG"], alert()["FAILURES"]
    oldest = inspect.oldest_wait(inspect.queues(most=1)) if limit is not None else None
    if oldest is not None and oldest > limit:
        yield BACKLOG, f"The oldest ready task has waited for {oldest:,.0f} s. The limit is {limit:g} s."
    percent, minutes = failures or (0, 0)
    for task_name, ended in of_tasks(minutes * 60).items() if failures else ():
        failed, runs = ended["failed"], ended["done"] + ended["failed"]
        if failed * 100 > percent * runs:
            said = f"{failed} of {runs} runs of {clean(task_name)} failed in the last {minutes:g} minutes."
            yield task_name[-MOST:], said


def _after_enqueue(id: Any, **kwargs: Any) -> None:
    """Look for a Foreman from time to time, once the call is committed."""
    global _look_at
    here = time.monotonic()
    if here >= _look_at and id and not collects():
        _look_at = here + LOOK_EVERY
        transaction.on_commit(_look_for_foreman, using=connect().alias)


def _look_for_foreman() -> None:
    try:
        after = alert().get("NO_FOREMAN")
        if after is not None and not is_attended():
            since = f"for at least {after:g} s, so no tasks are executed"
            _note(NO_FOREMAN, f"No Foreman has run {since}. Start it: python manage.py runsnappea", after)
    except Exception as error:  # never the caller's
        say_seldom(ERROR, "Snappea could not look for a Foreman: %r", error)


def _note(name: str, text: str, after: float = 0.0) -> None:
    """Tell an alert once it was noted for so many seconds, unless a process has told it already."""
    if is_to_be_told(name, after, again=PATIENCE) and _tell(name, text, is_over=False):
        note_told(name)


def _tell(name: str, text: str, is_over: bool) -> bool:
    """Tell an alert, or that it is over. Return whether that succeeded; the log has the error."""
    to = alert().get("TO")
    try:
        if to == "admins":
            mail_admins(f"Snappea: {text}", text)
        elif to is not None:
            (import_string(to) if isinstance(to, str) else to)(name=name, text=text, is_over=is_over)
    except Exception as error:
        say(ERROR, "Could not tell the alert %r: %r", text, error)
        return False
    return True
