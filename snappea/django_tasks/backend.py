"""The backend of django.tasks: `TASKS = {"default": {"BACKEND": "snappea.backend.SnappeaBackend"}}`.

Django imports this with the first function that it decorates, perhaps before there are models: what needs
those is in `djangotasks/`, and is imported when the first call is enqueued.
"""

import enum
import functools
from collections.abc import Callable, Iterator
from dataclasses import fields, make_dataclass, replace
from datetime import datetime
from operator import attrgetter
from types import NoneType
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error

from ..conf import alias as database_alias
from ..conf import declared_queues, setting_problems
from ..errors import TaskDefinitionError, UnknownTask
from ..queue.records import Claim, Origin, Outcome
from ..router import misrouted, routers_to_paste
from ..tasks import frameworks
from ..tasks.options import MOST_NAME, Options, is_priority, is_queue
from .framework import AnyResult, AnyTask, BaseTaskBackend, InvalidTask, task_backends

if TYPE_CHECKING:
    from .function import DjangoTask

#: How long a result is kept if OPTIONS["RESULT_TTL"] does not say, in seconds.
RESULT_TTL = 86_400
#: How many sets of options are remembered.
MOST_KEPT = 1000


class Unset(enum.Enum):
    """What an option is that a task says nothing of."""

    UNSET = "as OPTIONS says, or by default"

    # an enum's own takes ten times as long, and there are twenty in a key
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return self.name


UNSET = Unset.UNSET


#: Options of ours that django.tasks has under another name, or not at all.
_NOT_HERE = ("name", "queue", "priority", "aliases", "cron", "every", "timezone", "catch_up")
#: The names of our own options.
OWN = tuple(field.name for field in fields(Options) if field.name not in _NOT_HERE)
_TaskWithOptions: Any = make_dataclass(
    "_TaskWithOptions",
    [(name, Any, UNSET) for name in OWN],
    bases=(AnyTask,),
    frozen=True,
    slots=True,
    kw_only=True,
    repr=False,
)


class SnappeaTask(_TaskWithOptions):  # type: ignore[misc]  # its fields are those of Options
    """A django.tasks Task that may have options of `snappea.tasks.options.Options` as well."""

    __slots__ = ()

    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        written = (f"{name}={value!r}" for name, value in values.items() if value is not UNSET)
        return f"SnappeaTask({', '.join(written)})"

    def using(
        self,
        *,
        priority: int | None = None,
        queue_name: str | None = None,
        run_after: datetime | None = None,
        backend: str | None = None,
        **options: Any,
    ) -> "SnappeaTask":
        """Return the same task with other values. `options` are ours, and may be None."""
        theirs = {"priority": priority, "queue_name": queue_name, "run_after": run_after, "backend": backend}
        changes: dict[str, Any] = {key: value for key, value in theirs.items() if value is not None}
        return replace(self, **changes, **options)


_own_values: Callable[[SnappeaTask], tuple[Any, ...]] = attrgetter(*OWN)
_NOTHING_OWN = (UNSET,) * len(OWN)


class SnappeaBackend(BaseTaskBackend):
    """Enqueues tasks of django.tasks into Snappea's table, for the Foreman to run.

    OPTIONS has defaults for the options of `SnappeaTask`, in small letters or in capitals; RESULT_TTL is one.
    """

    task_class = SnappeaTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        written = {str(key).lower(): value for key, value in self.options.items()}
        self.defaults: dict[str, Any] = {"result_ttl": RESULT_TTL, **written}
        self._checked_options = functools.lru_cache(maxsize=MOST_KEPT, typed=True)(self._options)
        self._functions: dict[tuple[object, ...], DjangoTask] = {}

    def validate_task(self, task: AnyTask) -> None:
        """Raise InvalidTask if it cannot be enqueued here."""
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
                f"{path}() is defined in a script, where the Foreman cannot find it. "
                "Move it to tasks.py of an installed app."
            )
        if not is_queue(task.queue_name):
            raise InvalidTask(f"Queue {task.queue_name!r} is not valid: {_cure_of_queue(None)}")
        self.options_of(task)

    def options_of(self, task: AnyTask) -> Options:
        """Return how a task is to be run: the same object for the same options. Raises InvalidTask."""
        own = _own_values(task) if isinstance(task, SnappeaTask) else ()
        if own == _NOTHING_OWN:
            own = ()  # a short key is found faster
        try:
            return self._checked_options(task.module_path, *own)
        except TypeError:  # a list of exceptions, say, cannot be looked up
            return self._options(task.module_path, *own)

    def _options(self, name: str, *own: Any) -> Options:
        unknown = self.defaults.keys() - set(OWN)
        if unknown:
            raise InvalidTask(
                f"TASKS[{self.alias!r}]: OPTIONS has an unknown key {min(unknown)!r}; there are "
                f"{', '.join(OWN)}."
            )
        written = zip(OWN, own, strict=True) if own else ()
        chosen = {key: value for key, value in written if value is not UNSET}
        try:
            return Options.of(name, {**self.defaults, **chosen})
        except TaskDefinitionError as error:
            raise InvalidTask(str(error)) from None

    def enqueue(self, task: AnyTask, args: Any, kwargs: Any) -> Any:
        """Enqueue a call; it is committed when this returns.

        Raises InvalidTask, TypeError if an argument is not JSON, ArgumentsTooLarge or EnqueueError; in each
        case nothing was written.
        """
        self.validate_task(task)
        # not before: what is wrong with settings must not keep `manage.py check` from loading
        served = declared_queues()
        if served is not None and task.queue_name not in served:
            raise InvalidTask(f"Nobody serves the queue {task.queue_name!r}: {_cure_of_queue(served)}")
        result: AnyResult = self._calls.enqueue(self.function_of(task), task, args, kwargs)
        return result

    def get_result(self, result_id: str) -> AnyResult:
        """Return what has become of a call. Works in coroutines as well, where it blocks for a moment.

        Raises TaskResultDoesNotExist, or TaskResultMismatch if its task is no longer there.
        """
        from .results import get_result

        return get_result(self, result_id)

    def function_of(self, task: AnyTask) -> "DjangoTask":
        """Return what the Foreman runs. Raises InvalidTask."""
        options = self.options_of(task)
        key = task.func, task.takes_context, id(options)  # not its hash: that of twenty values
        found = self._functions.get(key)
        if found is None or found.options is not options:
            if len(self._functions) >= MOST_KEPT:
                self._functions.clear()
            found = self._calls.DjangoTask(task.func, options, task.takes_context, self.alias, type(self))
            self._functions[key] = found
        return found

    @functools.cached_property
    def _calls(self) -> Any:
        from . import function

        return function

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Return E021 to E025: what of the set-up is missing."""
        return list(self._check())

    def _check(self) -> Iterator[CheckMessage]:
        if setting_problems():
            return  # E001
        place, database = f"TASKS[{self.alias!r}]", database_alias()
        if not apps.is_installed("snappea"):
            yield Error(
                f"{place} is Snappea's, which is not installed.",
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
                f"{place}: the queue is not reached: {wrong}.",
                hint=f"Put Snappea's router first in the settings: {routers_to_paste()}",
                id="snappea.E023",
            )
        yield from self._check_own(place)

    def _check_own(self, place: str) -> Iterator[CheckMessage]:
        declared = declared_queues()
        for queue in sorted(self.queues, key=str):
            if not is_queue(queue) or (declared is not None and queue not in declared):
                yield Error(
                    f"{place}: nobody serves the queue {queue!r}.",
                    hint=_cure_of_queue(declared),
                    id="snappea.E024",
                )
        try:
            self._options(place)
        except InvalidTask as error:
            yield Error(str(error), hint="See the options of @task in the manual.", id="snappea.E025")


def _cure_of_queue(declared: list[str] | None) -> str:
    if declared is None:
        return "a queue's name is a string of 1 to 100 characters."
    return f'add it to SNAPPEA["QUEUES"], or use one of {", ".join(declared)}.'


class _DjangoTasks:
    """What Snappea asks of django.tasks. It imports models, so only when called."""

    def find(self, name: str) -> "DjangoTask | None":
        from .results import declared

        task = declared(name)
        backend = task_backends[task.backend] if task else None
        return backend.function_of(task) if task and isinstance(backend, SnappeaBackend) else None

    def find_claimed(self, claim: Claim, origin: Origin) -> "DjangoTask":
        from ..tasks.discovery import import_module_of, wait_for_import
        from .results import declared, restored

        name = claim.task_name
        wait_for_import(name.rpartition(".")[0])
        if declared(name) is None:
            import_module_of(name)
        backend = task_backends[origin.backend] if origin.backend in task_backends.settings else None
        if not isinstance(backend, SnappeaBackend):
            raise UnknownTask(
                f"Unknown task {name!r}: TASKS has no Snappea backend {origin.backend!r} any more."
            )
        task = restored(name, origin.backend, claim.queue, -claim.order, origin.overrides)
        if task is None:
            raise UnknownTask(f"Unknown task {name!r}: there is no django.tasks Task of that name.")
        try:
            return backend.function_of(task)
        except InvalidTask as error:
            raise UnknownTask(f"Unknown task {name!r}: {error}") from None

    def notify_settled(self, outcome: Outcome, is_urgent: bool = False) -> None:
        from .finished import send_for_outcome, signal_thread

        if is_urgent:
            send_for_outcome(outcome)
        else:
            signal_thread.call(functools.partial(send_for_outcome, outcome))

    def notify_row(self, task_id: int) -> None:
        from .finished import send_for_row, signal_thread

        signal_thread.call(functools.partial(send_for_row, task_id))

    def close(self) -> None:
        from .finished import signal_thread

        signal_thread.close()


frameworks.append(_DjangoTasks())
