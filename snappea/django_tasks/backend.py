"""The backend of django.tasks: `TASKS = {"default": {"BACKEND": "snappea.backend.SnappeaBackend"}}`.

Django imports it when the first function is decorated, which may be before models can be loaded. Code that
needs models is in the other modules of this package, which are imported when first used.
"""

import functools
from collections.abc import Iterator
from dataclasses import fields, make_dataclass, replace
from datetime import datetime
from importlib import import_module
from operator import attrgetter
from types import NoneType
from typing import TYPE_CHECKING, Any, cast

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.db import DEFAULT_DB_ALIAS, connections
from django.utils.functional import SimpleLazyObject

from ..conf import alias as database_alias
from ..conf import declared_queues, setting_problems
from ..errors import TaskDefinitionError
from ..router import misrouted, routers_to_paste
from ..tasks import Framework, foreign, frameworks
from ..tasks.options import MOST_NAME, Options, is_priority, is_queue
from .framework import AnyResult, AnyTask, BaseTaskBackend, InvalidTask

if TYPE_CHECKING:
    from .function import DjangoTask

#: How long a result is kept unless OPTIONS["RESULT_TTL"] says otherwise, in seconds.
RESULT_TTL = 86_400
#: How many sets of options and how many functions a backend caches.
MOST_KEPT = 1000
#: The value of an option that a task does not set.
UNSET: Any = ...
_NOT_OURS = {"name", "queue", "priority", "aliases", "cron", "every", "timezone", "catch_up", "schedulable"}
_NOT_OURS |= {"bind", "ignore_result", "track_started"}  # Celery's
#: The options that a task may have in addition to Django's.
OWN = tuple(field.name for field in fields(Options) if field.name not in _NOT_OURS)
_own_values = attrgetter(*OWN)
_NONE_SET = (UNSET,) * len(OWN)
_FIELDS = [*((name, Any, UNSET) for name in OWN), ("enqueue_on_commit", "bool | None", None)]
_WithOptions: Any = make_dataclass(
    "SnappeaTask", _FIELDS, bases=(AnyTask,), frozen=True, slots=True, kw_only=True, repr=False
)


class SnappeaTask(_WithOptions):  # type: ignore[misc]  # its fields are those of Options
    """A django.tasks Task that also takes options of `snappea.tasks.options.Options`."""

    __slots__ = ()

    def __repr__(self) -> str:
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return (
            f"SnappeaTask({', '.join(f'{name}={value!r}' for name, value in values if value is not UNSET)})"
        )

    def using(
        self,
        *,
        priority: int | None = None,
        queue_name: str | None = None,
        run_after: datetime | None = None,
        backend: str | None = None,
        **options: Any,
    ) -> "SnappeaTask":
        """Return a copy of the task with other values. `options` are Snappea's own, and may be None."""
        theirs = {"priority": priority, "queue_name": queue_name, "run_after": run_after, "backend": backend}
        return replace(self, **{key: value for key, value in theirs.items() if value is not None}, **options)


class SnappeaBackend(BaseTaskBackend):
    """Enqueues the tasks of django.tasks, for the Foreman to run.

    OPTIONS sets defaults for its tasks' options, in lower or upper case. With UUIDS there, results
    have UUIDs. With ENQUEUE_ON_COMMIT, there or beside it, calls wait for the commit of the caller's
    transaction in the default database.

    >>> TASKS = {"default": {"BACKEND": "snappea.backend.SnappeaBackend", "OPTIONS": {"RESULT_TTL": 3600}}}
    """

    task_class = SnappeaTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        written = {str(key).lower(): value for key, value in self.options.items()}
        #: Whether a call waits for the commit, unless its task says so.
        self.enqueue_on_commit = written.pop("enqueue_on_commit", params.get("ENQUEUE_ON_COMMIT"))
        #: Whether the ids of results are UUIDs.
        self.uses_uuids = written.pop("uuids", False)
        self.defaults: dict[str, Any] = {"result_ttl": RESULT_TTL, **written}
        self._options = functools.lru_cache(MOST_KEPT, typed=True)(self._make_options)
        self._function = functools.lru_cache(MOST_KEPT, typed=True)(self._make_function)

    def validate_task(self, task: AnyTask) -> None:
        """Raise InvalidTask if the task cannot be enqueued here."""
        if not is_priority(task.priority):
            raise InvalidTask("priority must be a whole number between -100 and 100.")
        if not isinstance(task.run_after, (datetime, NoneType)):
            raise InvalidTask("run_after must be an aware datetime.")
        super().validate_task(task)
        path = task.module_path
        if len(path) > MOST_NAME:
            raise InvalidTask(f"The name of a task has at most {MOST_NAME} characters: {path}.")
        if path.startswith("__main__."):
            raise InvalidTask(
                f"{path}() is defined in a script, so the Foreman cannot find it. "
                "Move it to tasks.py of an installed app."
            )
        if not is_queue(task.queue_name):
            raise InvalidTask(f"Queue {task.queue_name!r} is not valid: {_cure_of_queue(None)}")
        self.options_of(task)

    def enqueue(self, task: AnyTask, args: Any, kwargs: Any) -> Any:
        """Enqueue a call. It is committed when this returns, except if it waits for the caller's commit.

        Raises InvalidTask, TypeError if an argument is not JSON, ArgumentsTooLarge, or EnqueueError. In each
        case nothing was written.
        """
        self.validate_task(task)
        # not in validate_task(): `manage.py check` must be able to load the tasks despite a wrong setting
        served = declared_queues()
        if served is not None and task.queue_name not in served:
            raise InvalidTask(f"No Foreman serves the queue {task.queue_name!r}: {_cure_of_queue(served)}")
        return self.function_of(task).enqueue(task, args, kwargs, self._waits_for_commit(task))

    def _waits_for_commit(self, task: AnyTask) -> bool:
        own: bool | None = getattr(task, "enqueue_on_commit", None)
        if not (self.enqueue_on_commit if own is None else own):
            return False
        # where the queue is in the same database, its row is part of the transaction
        return database_alias() != DEFAULT_DB_ALIAS and connections[DEFAULT_DB_ALIAS].in_atomic_block

    def get_result(self, result_id: str) -> AnyResult:
        """Return the result of a call. In a coroutine it works, too, but blocks the event loop briefly.

        Raises TaskResultDoesNotExist, or TaskResultMismatch if its task no longer exists.
        """
        from .results import get_result

        return get_result(self, result_id)

    def options_of(self, task: AnyTask) -> Options:
        """Return the options of a task, cached. Raises InvalidTask."""
        own = _own_options(task)
        try:
            return self._options(task.module_path, *own)
        except TypeError:  # an unhashable value, which is invalid
            return self._make_options(task.module_path, *own)

    def function_of(self, task: AnyTask) -> "DjangoTask":
        """Return the TaskFunction of a task, cached. Raises InvalidTask."""
        return self._function(task.func, task.takes_context, task.module_path, *_own_options(task))

    def _make_function(self, func: Any, takes_context: bool, name: str, *own: Any) -> "DjangoTask":
        from .function import DjangoTask

        return DjangoTask(func, self._options(name, *own), takes_context, self.alias, type(self))

    def _make_options(self, name: str, *own: Any) -> Options:
        if unknown := self.defaults.keys() - set(OWN):
            hint = foreign.instead(min(unknown), foreign.BACKEND_OPTIONS, OWN)
            raise InvalidTask(f"TASKS[{self.alias!r}]: OPTIONS has an unknown key {min(unknown)!r}; {hint}")
        chosen = {key: value for key, value in zip(OWN, own, strict=False) if value is not UNSET}
        try:
            return Options.of(name, {**self.defaults, **chosen})
        except TaskDefinitionError as error:
            raise InvalidTask(str(error)) from None

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Return E021 to E025: errors in the set-up."""
        return list(self._check())

    def _check(self) -> Iterator[CheckMessage]:
        if setting_problems():
            return  # E001
        place, database = f"TASKS[{self.alias!r}]", database_alias()
        if not apps.is_installed("snappea"):
            yield Error(
                f"{place} is Snappea's, but Snappea is not installed.",
                hint='Add to settings: INSTALLED_APPS = [..., "snappea"]',
                id="snappea.E021",
            )
        if database not in settings.DATABASES:
            paste = '{"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "snappea.sqlite3"}'
            yield Error(
                f"{place}: there is no database {database!r} for the queue.",
                hint=f'Add to settings: DATABASES["{database}"] = {paste}',
                id="snappea.E022",
            )
        elif apps.is_installed("snappea") and (wrong := misrouted()):
            yield Error(
                f"{place}: queries do not reach the queue's database: {wrong}.",
                hint=f"Put Snappea's router first in settings: {routers_to_paste()}",
                id="snappea.E023",
            )
        yield from self._check_own(place)

    def _check_own(self, place: str) -> Iterator[CheckMessage]:
        declared = declared_queues()
        for queue in sorted(self.queues, key=str):
            if not is_queue(queue) or (declared is not None and queue not in declared):
                yield Error(
                    f"{place}: no Foreman serves the queue {queue!r}.",
                    hint=_cure_of_queue(declared),
                    id="snappea.E024",
                )
        try:
            self._make_options(place)
            for name, value in (("ENQUEUE_ON_COMMIT", self.enqueue_on_commit), ("UUIDS", self.uses_uuids)):
                if value not in (None, True, False):
                    raise InvalidTask(f"{place}: {name} must be True, False or None.")
        except InvalidTask as error:
            yield Error(str(error), hint="See the options of @task in the manual.", id="snappea.E025")


def _own_options(task: AnyTask) -> tuple[Any, ...]:
    """Return the values of a task's own options; empty if none is set, as a short cache key is faster."""
    own = _own_values(task) if isinstance(task, SnappeaTask) else _NONE_SET
    if own == _NONE_SET:
        return ()
    return tuple(tuple(value) if isinstance(value, list) else value for value in own)


def _cure_of_queue(declared: list[str] | None) -> str:
    if declared is None:
        return "a queue's name is a string of 1 to 100 characters."
    return f'add it to SNAPPEA["QUEUES"], or use one of {", ".join(declared)}.'


#: What the core asks of django.tasks. It needs models, so it is imported when the core first asks.
frameworks.append(
    cast(Framework, SimpleLazyObject(functools.partial(import_module, "snappea.django_tasks.adapter")))
)
