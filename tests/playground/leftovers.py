"""Tasks that leave something behind, and note what the last one left."""

import os
import threading
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from asgiref.local import Local
from asgiref.sync import sync_to_async
from django.db import connections

from snappea import task

from .ledger import note

_thread = threading.local()
_local: Any = Local()
_variable: ContextVar[str | None] = ContextVar("left_behind", default=None)
_HOME = Path.cwd()


@task(isolate=True)
def change_apart() -> None:
    """Change what belongs to the thread and the process."""
    note("before", getattr(_thread, "tenant", None), "LEFT_BEHIND" in os.environ, Path.cwd() == _HOME)
    _thread.tenant = os.environ["LEFT_BEHIND"] = "one"
    os.chdir("/")


@task
async def change_on_loop() -> None:
    """Change what belongs to the thread, the context, and the connections of both threads."""
    connection: Any = connections["default"]
    before = [getattr(_thread, "tenant", None), getattr(_local, "tenant", None), _variable.get()]
    before += [getattr(connection, "tenant", None), await sync_to_async(_change_in_thread)()]
    note("before", *before)
    _thread.tenant = _local.tenant = connection.tenant = "one"
    _variable.set("one")


def _change_in_thread() -> Any:
    connection: Any = connections["default"]
    before = getattr(_thread, "tenant", None) or getattr(connection, "tenant", None)
    _thread.tenant = connection.tenant = "one"
    return before
