"""`manage.py snappea replay`: run a task again, here and now, and undo what it does in the databases."""

import contextvars
import json
import pdb
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

from django import VERSION
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, Error, connections, transaction
from django.db.backends.signals import connection_created

from ..conf import alias, current
from ..log import clean
from ..models import Status, Task
from ..queue.records import Call, Claim
from ..tasks import engine
from ..tasks.discovery import task_of
from ..tasks.engine import Caller, R, TableEngine
from ..tasks.memory_engine import claim_of
from ..workers.execute import run_eagerly
from .console import HIDDEN
from .subcommands import Subcommands, number, row_of

ON_CONSOLE = "django.core.mail.backends.console.EmailBackend"
HOME = f"{Path(__file__).parent.parent}/"


class Replayed(TableEngine):
    """Lets a task continue after the finished steps of its row, and keeps no new ones."""

    def __init__(self, row: Task) -> None:
        self._row = row

    def steps_of(self, claim: Claim) -> str:
        """Return what the row has."""
        return self._row.steps

    def keep_steps(self, claim: Claim, steps: str) -> None:
        """Do nothing: the row stays as it is."""


class Withheld(Replayed):
    """Shows the calls that the task enqueues, instead. Their ids are negative: no row has them."""

    def __init__(self, row: Task, command: BaseCommand) -> None:
        super().__init__(row)
        self._command, self._ids = command, count(-1, -1)

    def submit(
        self, call: Call, caller: Caller[R], moment: str | None = None, is_committed: bool = False
    ) -> R:
        """Show a call."""
        return caller.accepted(*self._show(call))

    def submit_many(self, calls: Sequence[Call], caller: Caller[R]) -> list[R]:
        """Show many calls."""
        return [self.submit(call, caller) for call in calls]

    broadcast = engine.Engine.broadcast

    def submit_batch(self, collector: Any) -> None:
        """Show the members of a batch, without those that follow."""
        for plan in collector.plan.family():
            plan.id = plan.id or next(self._ids)
            plan.written = [self._show(call) for call, *_ in plan.members]

    def _show(self, call: Call) -> tuple[int, bool]:
        is_sensitive = call.extras is not None and call.extras.is_sensitive
        arguments = HIDDEN if is_sensitive else f"(*{clean(call.args)}, **{clean(call.kwargs)})"
        self._command.stderr.write(f"Not enqueued: {clean(call.task_name)}{arguments}")
        return next(self._ids), False


def add(subcommands: Subcommands) -> None:
    """Add the subcommand."""
    about = "Run a kept or waiting task again, in this process, and undo what it does in the databases."
    parser = subcommands.add("replay", _replay, about)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("id", type=number, nargs="?", metavar="ID")
    which.add_argument("--file", help='What "show ID --json" has printed; "-": standard input.')
    parser.add_argument("--commit", action="store_true", help="Undo nothing, enqueue its calls, send mails.")
    parser.add_argument("--pdb", action="store_true", help="Start a debugger where the task raises.")


def _replay(command: BaseCommand, options: dict[str, Any]) -> None:
    row = _from_file(options["file"]) if options["file"] else row_of(options["id"])
    if row.status == Status.RUNNING and not options["file"]:
        raise CommandError(f"{row} is running. Replay it when it has ended.")
    claim = claim_of(row, False)._replace(attempts=max(1, row.attempts), started_at=None)  # keeps no log
    task, inside = task_of(claim), contextvars.Context()
    commits = _accepting(Replayed(row), "snappea")
    with commits if options["commit"] else _rolled_back(row, command):
        try:
            result = inside.run(run_eagerly, task, claim)
        except KeyboardInterrupt:
            raise
        except BaseException as failure:
            found = _without_our_frames(failure.__traceback__)
            traceback.print_exception(failure.with_traceback(found), file=sys.stderr)
            if options["pdb"]:
                pdb.post_mortem(found)
            sys.exit(1)
    command.stdout.write(repr(result))


def _from_file(name: str) -> Task:
    """Return the row that `snappea show ID --json` has printed."""
    columns = {field.attname: field for field in Task._meta.concrete_fields}
    try:
        data = json.loads(sys.stdin.read() if name == "-" else Path(name).read_text())
        values = {key: columns[key].to_python(value) for key, value in data.items() if key in columns}
        row = Task(**{"id": 0, **values, "task_name": data["task_name"]})
    except (OSError, ValueError, LookupError, AttributeError, ValidationError) as error:
        why = f"{type(error).__name__}: {error}"
        raise CommandError(f"{name} is not what `snappea show ID --json` prints: {why}") from error
    if HIDDEN in (row.args, row.kwargs):
        raise CommandError(f"{row} is sensitive: {name} does not have its arguments.")
    return row


@contextmanager
def _accepting(accepts: engine.Engine, *names: str) -> Iterator[None]:
    before = dict(engine.registered)
    engine.registered |= dict.fromkeys(names, accepts)
    try:
        yield
    finally:
        engine.registered = before


@contextmanager
def _rolled_back(row: Task, command: BaseCommand) -> Iterator[None]:
    """Run a block in a transaction of each database, without calls and mails."""
    begun = [name for name in connections if name != alias() or name == DEFAULT_DB_ALIAS]
    with ExitStack() as stack:
        for name in begun:
            with suppress(Error, ImproperlyConfigured):  # not available here: the task may not use it
                stack.enter_context(_transaction(name))
        connection_created.connect(_refuse)
        stack.callback(connection_created.disconnect, _refuse)
        stack.enter_context(_accepting(Withheld(row, command), "snappea", current().ENGINE))
        stack.enter_context(_mails_on_console())
        yield


@contextmanager
def _transaction(name: str) -> Iterator[None]:
    block: Any = transaction.atomic(using=name)
    block._from_testcase = True  # as in Django's TestCase: blocks with durable=True may be inside
    with block:
        try:
            yield
        finally:
            transaction.set_rollback(True, using=name)


def _refuse(*, connection: Any, **kwargs: Any) -> None:
    """Close a connection that opens in a replay, such as that of a thread: it would commit."""
    if connection.alias != alias() or connection.alias == DEFAULT_DB_ALIAS:
        connection.close()
        raise RuntimeError(
            f"A replay cannot undo what a new connection to {connection.alias!r} does, such as that of a "
            "thread. Use --commit."
        )


def _mails_on_console() -> AbstractContextManager[Any]:
    from django.test.utils import override_settings  # no other command needs it

    if VERSION >= (6, 1) and (mailers := getattr(settings, "MAILERS", None)):
        return override_settings(MAILERS={name: {"BACKEND": ON_CONSOLE} for name in mailers})
    return override_settings(EMAIL_BACKEND=ON_CONSOLE)


def _without_our_frames(found: TracebackType | None) -> TracebackType | None:
    whole = found
    while found and found.tb_frame.f_code.co_filename.startswith(HOME):
        found = found.tb_next
    return found or whole
