"""A real Foreman for tests: `runsnappea` in its own process, with the test's settings and databases."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from django.conf import ENVIRONMENT_VARIABLE, global_settings, settings
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connections

from ..conf import current
from ..queue.clock import steady_clock
from ..queue.database import connect, file_of, raw
from ..queue.foremen import foremen_at_work

WORK = "SELECT EXISTS (SELECT 1 FROM snappea_task WHERE status IN ('ready', 'running'))"
#: How often to check the process and the table, in seconds.
LOOK_EVERY = 0.005
#: The settings module of the process.
SETTINGS = """\
import json
from {module} import *
globals().update(json.loads({changed!r}))
for alias, name in json.loads({databases!r}).items():
    if name is None:  # not a database of the test
        DATABASES[alias] = {{"ENGINE": "django.db.backends.dummy"}}
    else:
        DATABASES[alias]["NAME"] = name
"""


class LiveForeman:
    """A Foreman that runs for a test."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def output(self) -> str:
        """Return its log so far."""
        return self._log.read_text(errors="replace")

    def wait_until_idle(self, timeout: float = 10.0) -> None:
        """Wait until no task is ready or running, at most `timeout` seconds.

        Raises TimeoutError, and RuntimeError if the Foreman has ended; both show its log.
        """
        if self._wait(lambda: not raw(connect()).execute(WORK).fetchone()[0], timeout):
            return
        if self._process.poll() is not None:
            raise RuntimeError(f"The Foreman has ended:\n{self.output()}")
        raise TimeoutError(f"Tasks are still ready or running after {timeout:g} s:\n{self.output()}")

    def _wait(self, is_done: Callable[[], bool], timeout: float) -> bool:
        """Wait while the process runs, by a clock that tests do not freeze. Return the last `is_done()`."""
        deadline = steady_clock() + timeout
        while not (done := is_done()) and self._process.poll() is None and steady_clock() < deadline:
            time.sleep(LOOK_EVERY)
        return done

    def _stop(self, timeout: float) -> None:
        self._process.terminate()
        self._wait(lambda: False, timeout)
        self._process.kill()
        self._process.wait()


@contextmanager
def run_foreman(timeout: float) -> Iterator[LiveForeman]:
    """Run a Foreman in a `with` block; see `snappea.testing.foreman`."""
    values = {
        "module": os.environ[ENVIRONMENT_VARIABLE],
        "changed": json.dumps(_changed_settings(), default=_as_json),
        "databases": json.dumps(_databases()),
    }
    with tempfile.TemporaryDirectory(prefix="snappea-") as directory:
        Path(directory, "snappea_live_settings.py").write_text(SETTINGS.format(**values))
        paths = os.pathsep.join([directory, *(path or os.getcwd() for path in sys.path)])
        environment = os.environ | {"PYTHONPATH": paths, ENVIRONMENT_VARIABLE: "snappea_live_settings"}
        command = [sys.executable, "-m", "django", "runsnappea", "--no-reload"]
        with open(f"{directory}/log", "wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        foreman = LiveForeman(process, Path(log.name))
        try:
            if not foreman._wait(lambda: process.pid in {info.pid for info in foremen_at_work()}, timeout):
                raise RuntimeError(f"The Foreman did not start:\n{foreman.output()}")
            yield foreman
        finally:
            foreman._stop(timeout)
            _remove_files()


def _databases() -> dict[str, str | None]:
    """Return the name of each database that the test may use, or None."""
    queue = current().DATABASE
    if _name_of(queue) is None:
        raise RuntimeError(f'A Foreman needs databases = {{"default", "{queue}"}} on the test.')
    return {alias: _name_of(alias) for alias in connections}


def _name_of(alias: str) -> str | None:
    connection: Any = connections[alias]
    try:
        with connection.cursor():
            pass
    except (AssertionError, RuntimeError, ImproperlyConfigured, Error):  # not allowed here, or missing
        return None
    if connection.in_atomic_block:
        raise RuntimeError(
            f"{alias!r} is in a transaction, which a Foreman cannot see: use TransactionTestCase, "
            "LiveServerTestCase or django_db(transaction=True)."
        )
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        raise RuntimeError(
            f"The test database of {alias!r} is in memory, where a Foreman cannot see it. Add to settings: "
            f'DATABASES["{alias}"]["TEST"] = {{"NAME": BASE_DIR / "test-{alias}.sqlite3"}}'
        )
    return str(connection.settings_dict["NAME"])


def _changed_settings() -> dict[str, Any]:
    """Return the settings that the test or its runner has changed, if JSON can carry them.

    Without them the process would send real mail, for example.
    """
    written = sys.modules.get(os.environ[ENVIRONMENT_VARIABLE])
    found = {}
    for name in filter(str.isupper, dir(settings)):
        value = getattr(settings, name)
        is_changed = value != getattr(written, name, getattr(global_settings, name, None))
        if is_changed and name not in ("DATABASES", "SETTINGS_MODULE"):
            with suppress(TypeError, ValueError):
                json.dumps(value, default=_as_json)
                found[name] = value
    return found


def _as_json(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"JSON cannot carry {value!r}")


def _remove_files() -> None:
    """Remove the Foreman's files beside the database, because the test runner does not."""
    if file := file_of(connect()):
        for path in (file.wakeup, file.lock, file.logbook):
            Path(path).unlink(missing_ok=True)
