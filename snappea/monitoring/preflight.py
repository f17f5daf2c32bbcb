"""Whether stored calls fit the code of this process: `manage.py snappea preflight`. It writes nothing.

What depends on the task, or on the number and the names of the arguments, is found once for each.
"""

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from inspect import Parameter, unwrap
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, NamedTuple, TypeAlias, Union, get_args, get_origin, get_type_hints

from ..conf import hook
from ..errors import ConfigurationError, UnknownQueue, UnknownTask, UnreadableArguments
from ..queue.callbacks import AWAITS_RESULT, unpacked
from ..queue.database import FAULTS, connect, raw
from ..queue.dialects import statement
from ..queue.records import Claim, ClaimExtras, Origin
from ..schedules.rows import EACH, Planned, matched
from ..tasks.arguments import decode
from ..tasks.calls import require_queue
from ..tasks.discovery import task_of
from ..tasks.function import TaskFunction

#: How many rows are read at once: each may take MAX_ARGUMENT_BYTES.
PAGE = 200
#: How many problems are told apart, with how many characters, and how many tasks and shapes are remembered.
MOST = 300
_CALLS = statement("""
    SELECT id, CAST(enqueued_at AS text), task_name, queue, backend, status, args, kwargs FROM snappea_task
    WHERE id > ? AND status IN ('ready', 'scheduled', 'running', 'failed', 'interrupted')
    ORDER BY id LIMIT ?""")
#: The callbacks that may still come: of a batch that has ended, if a failed member is requeued.
_CALLBACKS = statement("""
    SELECT id, CAST(created_at AS text), CASE WHEN success_id IS NULL THEN on_success END,
        CASE WHEN failure_id IS NULL THEN on_failure END, CASE WHEN complete_id IS NULL THEN on_complete END
    FROM snappea_batch WHERE id > ? AND (finished_at IS NULL OR EXISTS (
        SELECT 1 FROM snappea_task WHERE batch_id = snappea_batch.id AND batch_id IS NOT NULL
            AND status IN ('failed', 'interrupted')))
    ORDER BY id LIMIT ?""")
#: What a value from JSON may be, by the annotation of its parameter. Other annotations accept anything.
_KINDS: dict[Any, set[type]] = {kind: {kind} for kind in (str, bool, list, dict, NoneType)}
_KINDS |= {int: {int, bool}, float: {float, int, bool}, tuple: {list}, Mapping: {dict}, Sequence: {list, str}}
_ESCAPED = partial(str, encoding="utf-8", errors="backslashreplace")
_OR_DELETE = "or cancel or delete these calls"
#: What is wrong with a call, without the values of its arguments, and the cure.
Fault: TypeAlias = tuple[str, str]


class Problem(NamedTuple):
    """Calls of a task with the same fault. `rows`: how many, by status, and of callbacks and schedules.

    `oldest`: the id of the first one, or a text that names a batch or a schedule. `since`: when it was
    enqueued, as in the database.
    """

    task: str
    what: str
    cure: str
    rows: Counter[str]
    oldest: int | str
    since: str | None


class Report:
    """What was found. `checked`: how many calls, by status, and of callbacks and schedules."""

    def __init__(self, has_types: bool) -> None:
        self.checked: Counter[str] = Counter()
        self.problems: dict[tuple[str, str], Problem] = {}
        self._code = lru_cache(MOST)(partial(_Code, has_types))

    def check(
        self, status: str, code: tuple[Any, ...], args: str, kwargs: str, *oldest: Any, first: int = 0
    ) -> None:
        """Check a call. `code`: the name of its task, its queue, and its backend of django.tasks.

        `first`: 1 if the type of the first argument is not known yet, because it is a result.
        """
        self.add(status, code[0], self._code(*code).faults_of(args, kwargs, first), *oldest)

    def add(self, status: str, task: object, faults: Iterable[Fault], *oldest: Any) -> None:
        """Count a call, and add its faults."""
        self.checked[status] += 1
        for what, cure in {*faults}:
            key = str(task)[:MOST], what[:MOST]
            if key not in self.problems:
                if len(self.problems) >= MOST:
                    key, cure = ("others", "there are more problems"), "Solve these first."
                self.problems.setdefault(key, Problem(*key, cure, Counter(), *oldest))
            self.problems[key].rows[status] += 1


class _Code:
    """The code that runs the calls of a name in a queue. `backend`: of django.tasks."""

    def __init__(self, has_types: bool, name: str, queue: str, backend: str | None) -> None:
        self._faults: list[Fault] = []
        self._fit = lru_cache(MOST)(self._fit_of)
        self._task = self._find(name, queue, backend)
        if self._task is None:
            return
        self._kinds = dict(_kinds(self._task)) if has_types else {}
        if self._task.is_isolated and not hasattr(os, "fork"):
            what = "it needs a process of its own, and this system has no os.fork()"
            self._faults.append((what, "Run the Foreman on Unix."))
        try:
            require_queue(queue, name)
        except UnknownQueue as error:
            what = str(error).removeprefix(f"{name}: ").partition(". Add it")[0]
            self._faults.append((what, f"Keep the queue until no call is left in it, {_OR_DELETE}."))

    def _find(self, name: str, queue: str, backend: str | None) -> TaskFunction[..., Any] | None:
        """Find the task as a worker does, which may import its module."""
        extras = ClaimExtras(origin=Origin(backend, None, "", None, "")).as_json() if backend else None
        try:
            return task_of(Claim(0, 0, 0, name, "[]", "{}", queue, extras_json=extras))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also of a module that calls sys.exit()
            what = str(error).removeprefix(f"Unknown task {name!r}: ").partition(". If it was")[0]
            cure = (
                "Correct its module, or add its name to the aliases of the task that replaces it; or run: "
                "manage.py snappea cancel --task {0}; manage.py snappea delete --task {0}"
            ).format(shlex.quote(str(name)))
            self._faults.append((what.rstrip(".") or repr(error), cure))
            return None

    def faults_of(self, args: str, kwargs: str, first: int) -> list[Fault]:
        """Return what is wrong with a call."""
        if self._task is None:
            return self._faults
        try:
            values, named = decode(args, kwargs)
        except UnreadableArguments:
            what = "the arguments are not a JSON list and a JSON object"
            return [*self._faults, (what, f"Correct them by hand, {_OR_DELETE}.")]
        faults, typed = self._fit(self._task, len(values), *named)
        values += named.values()
        wrong = [
            _mistyped(name, type(values[place]).__name__, kinds)
            for place, name, kinds in typed
            if type(values[place]) not in kinds and place >= first
        ]
        return faults + wrong

    def _fit_of(self, task: TaskFunction[..., Any], count: int, *names: str) -> tuple[list[Fault], list[Any]]:
        """Return the faults of calls with so many positional and these named arguments.

        Also return the place, the name and the possible types of the arguments that have a type.
        """
        known = task.signature.parameters
        is_open = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in known.values())
        keeps = is_open or not hook("HOOK_RUN_TASK_CONTEXT")  # it may remove what the other hook has added
        named = {name: count + n for n, name in enumerate(names) if keeps or name in known}
        try:
            task.require_fit(tuple(range(count)), named)
        except TypeError as error:
            what = str(error).removeprefix(f"{task.name}(): ")
            cure = f"Give a new parameter a default, and accept a former one, {_OR_DELETE}."
            return [*self._faults, (what, cure)], []
        typed = []
        for name, bound in task.signature.bind(*range(count), **named).arguments.items():
            places = bound.values() if isinstance(bound, dict) else bound
            places = [bound] if isinstance(bound, int) else places
            typed += [
                (place, name, frozenset(self._kinds[name])) for place in places if self._kinds.get(name)
            ]
        return self._faults, typed


@lru_cache(MOST)
def _mistyped(name: str, found: str, kinds: frozenset[type]) -> Fault:
    expected = " or ".join(sorted(kind.__name__ for kind in kinds - {bool} or kinds))
    what = f"the argument {name!r} is of type {found}, not {expected}"
    return (what, f"Accept both until no such call is left, {_OR_DELETE}.")


def _kinds(task: TaskFunction[..., Any]) -> Iterator[tuple[str, set[type]]]:
    """Yield the parameters, each with the types that its values may have; without any if all."""
    names = getattr(unwrap(task.function), "__globals__", {})
    for name, parameter in task.signature.parameters.items():
        try:
            hints = get_type_hints(SimpleNamespace(__annotations__={"": parameter.annotation}), names)
            kinds = _kinds_of(hints[""])
        except Exception:  # it needs an import for type checkers, or is no type
            kinds = set()
        yield name, kinds | {NoneType} if kinds and parameter.default is None else kinds


def _kinds_of(hint: Any) -> set[type]:
    if get_origin(hint) not in (Union, UnionType):
        return _KINDS.get(get_origin(hint) or hint, set())
    parts = [_kinds_of(part) for part in get_args(hint)]
    return set().union(*parts) if all(parts) else set()


def examine(has_types: bool = True) -> Report:
    """Check the tasks that wait, run or may be requeued, the callbacks that may come, and the schedules.

    `has_types`: also compare the arguments with annotations. Raises one of UNUSABLE.
    """
    report = Report(has_types)
    for row in _rows(_CALLS):
        report.check(row[5], row[2:5], row[6], row[7], row[0], row[1])
    for id, since, *packed in _rows(_CALLBACKS):
        for text in packed:
            _check_callback(report, text, f"of batch #{id}", since)
    for _before, planned, is_gone in matched(raw(connect()), EACH):
        if not is_gone:
            _check_schedule(report, planned)
    return report


def _rows(sql: str, after: int = -(2**63)) -> Iterator[tuple[Any, ...]]:
    """Yield rows by their ids. Each page is a transaction of its own, so that none stays open."""
    link: Any = raw(connect())
    try:
        while page := link.execute(sql, (after, PAGE)).fetchall():
            yield from page
            after = page[-1][0]
    except FAULTS:
        before = getattr(link, "text_factory", _ESCAPED)
        if before is _ESCAPED:
            raise
        link.text_factory = _ESCAPED  # SQLite may hold text that is not UTF-8
        try:
            yield from _rows(sql, after)
        finally:
            link.text_factory = before


def _check_callback(report: Report, text: str | None, *oldest: Any) -> None:
    try:
        while text:  # of a chain, its calls
            first = int(text.startswith(AWAITS_RESULT))
            call, text = unpacked(text)
            code = call.task_name, call.queue, call.extras and call.extras.backend
            report.check("callbacks", code, call.args, call.kwargs, *oldest, first=first)
    except (AttributeError, KeyError, ValueError, TypeError, RecursionError):  # written by hand
        fault = ("a callback cannot be read", "Correct the row of the batch by hand.")
        report.add("callbacks", "snappea_batch", [fault], *oldest)


def _check_schedule(report: Report, planned: Planned) -> None:
    plan, oldest = planned.plan, (f"schedule {planned.plan.name}", None)
    try:
        plan.trigger()
        own = plan.task(planned.is_added).options.queue
    except (ConfigurationError, UnknownTask) as error:
        fault = (str(error).rstrip("."), "Change or remove the schedule.")
        report.add("schedules", plan.task_name, [fault], *oldest)
    else:
        report.check("schedules", (plan.task_name, plan.queue or own, None), plan.args, plan.kwargs, *oldest)
