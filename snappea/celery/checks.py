"""System checks for Celery as the engine: its set-up, and options without an equivalent."""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.utils.module_loading import import_string

from ..checks import SETUP, listed
from ..conf import current, uses_celery
from ..errors import ConfigurationError, ExtraMissing
from ..monitoring.diagnostics import WORKERS, Finding
from ..tasks.discovery import discover
from ..tasks.function import TaskFunction, declared, registry

#: Options without an equivalent in Celery, and what happens instead.
GAPS = {
    "unique": "identical calls all run",
    "unique_for": "identical calls all run",
    "debounce": "each of identical calls runs, so long after it was enqueued",
    "throttle": "identical calls all run",
    "max_concurrency": "as many calls run at a time as there are workers; give the task a queue of its own, "
    "served by one worker with --concurrency",
    "concurrency_key": "it is not called",
    "fair_by": "it is not called, and the oldest call comes first",
    "rate_limit": "each of Celery's workers applies it separately",
    "isolate": "the task runs in a process of the prefork pool, where other tasks ran before",
    "max_memory": "its memory is not limited; see worker_max_memory_per_child",
    "keep_log": "what the task logs is in the log of Celery's worker only",
    "keep": "finished tasks are in no list",
    "tags": "nothing finds tasks by them",
    "retry_on_kill": "a killed task fails; see acks_late",
    "sensitive": "the result appears in the log of Celery's worker and in its result backend",
}


@listed
def check_celery(**kwargs: Any) -> Iterator[CheckMessage]:
    """E012, E015, E026, W002 and W003: Celery, if it is the engine."""
    if not uses_celery():
        return
    if find_spec("celery") is None:
        missing = ExtraMissing('SNAPPEA["ENGINE"] = "celery" needs Celery', "celery")
        yield Error(str(missing), f"Run: pip install '{missing.package}'", id="snappea.E012")
        return
    from .engine import project_app

    discover()
    yield from _check_options()
    yield from _check_django_tasks()
    try:
        if not project_app().conf.result_backend:
            yield from _check_results()
    except ConfigurationError as error:
        yield Error(str(error), "See First steps with Django in Celery's manual.", id="snappea.E015")


def examine_workers() -> Iterator[Finding]:
    """Ping Celery's workers, for `manage.py snappea check`."""
    from .engine import project_app

    try:
        found = project_app().control.ping(timeout=2.0)
    except Exception as error:  # each broker has its own errors
        yield Finding("Celery", f"the broker does not answer: {error}. Check broker_url", False)
        return
    names = [name for answer in found for name in answer]
    if names:
        yield Finding("Celery", f"{len(names)} workers answer: {', '.join(names)}")
    else:
        yield Finding("Celery", "no worker answers; start one: celery -A proj worker", False)


SETUP.append(check_celery)
WORKERS["celery"] = examine_workers


def _check_options() -> Iterator[CheckMessage]:
    for option, what, names in _gaps():
        message = f"{option} has no equivalent in Celery: {what}. It is used by: {', '.join(names)}."
        hint = 'If that is acceptable: SILENCED_SYSTEM_CHECKS = ["snappea.W002"]'
        yield Warning(message, hint, id="snappea.W002")


def _gaps() -> Iterator[tuple[str, str, list[str]]]:
    for option, what in GAPS.items():
        if names := sorted(task.name for task in declared() if _uses(task, option)):
            yield option, what, names
    limited = [name for name, limits in (current().QUEUES or {}).items() if "max_concurrency" in limits]
    if limited:
        yield 'QUEUES: "max_concurrency"', "a queue has no limit there", sorted(limited)


def _uses(task: TaskFunction[..., Any], option: str) -> bool:
    options = task.options
    is_used = bool(getattr(options, option)) and (option != "sensitive" or options.result_ttl is not None)
    return is_used and not _is_ours(task.name)


def _is_ours(name: str) -> bool:
    """Tell whether a task is Snappea's: it does without what Celery lacks."""
    return name.startswith("snappea.")


def _check_django_tasks() -> Iterator[CheckMessage]:
    """Not in the backend: Django calls its check only if django.tasks has been imported."""
    for alias, params in getattr(settings, "TASKS", {}).items():
        kind = import_string(params["BACKEND"])
        ours = sys.modules.get("snappea.backend")  # not loaded: the backend is not ours
        if ours and issubclass(kind, ours.SnappeaBackend):
            message = f"TASKS[{alias!r}] is Snappea's, but Celery is the engine and does not run its tasks."
            hint = 'Give TASKS another backend, or remove SNAPPEA["ENGINE"].'
            yield Error(message, hint, id="snappea.E026")


def _check_results() -> Iterator[CheckMessage]:
    wanted = [name for name, task in sorted(registry.items()) if task.options.result_ttl is not None]
    if wanted := [name for name in wanted if not _is_ours(name)]:
        message = f"Celery keeps no results, though these tasks have a result_ttl: {', '.join(wanted)}."
        hint = 'Set Celery\'s result_backend, as in: CELERY_RESULT_BACKEND = "redis://"'
        yield Warning(message, hint, id="snappea.W003")
