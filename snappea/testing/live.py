"""A real Foreman for a test: `manage.py runsnappea` in a process of its own, on the test's databases."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from django.conf import global_settings, settings
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connections

from ..conf import current
from ..foreman.systemd import READY
from ..queue.clock import steady_clock
from ..queue.database import connect, file_of, raw

#: Where the Foreman's process finds which databases it may use, and which settings tests have changed.
VARIABLE, SETTINGS = "SNAPPEA_LIVE_DATABASES", "SNAPPEA_LIVE_SETTINGS"
WORK = "SELECT EXISTS (SELECT 1 FROM snappea_task WHERE status IN ('ready', 'running'))"
#: How often to look whether there is still something to do, in seconds.
LOOK_EVERY = 0.005


class LiveForeman:
    """A Foreman that runs for a test."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: IO[bytes]) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def output(self) -> str:
        """Return what it logged so far."""
        return Path(self._log.name).read_text(errors="replace")

    def wait_until_idle(self, timeout: float = 10.0) -> None:
        """Wait until nothing is ready or running. Raises TimeoutError, with the log."""
        deadline = steady_clock() + timeout
        while raw(connect()).execute(WORK).fetchone()[0]:
            if self._process.poll() is not None:
                raise RuntimeError(f"The Foreman has ended:\n{self.output()}")
            if steady_clock() > deadline:
                raise TimeoutError(f"There was still something to do after {timeout:g} s:\n{self.output()}")
            time.sleep(LOOK_EVERY)

    def stop(self, timeout: float) -> None:
        """Stop it in order; kill it if that takes longer than so many seconds."""
        self._process.send_signal(signal.SIGTERM)
        deadline = steady_clock() + timeout  # Popen.wait() would go by a clock that tests freeze
        while self._process.poll() is None and steady_clock() < deadline:
            time.sleep(LOOK_EVERY)
        self._process.kill()
        self._process.wait()


@contextmanager
def run_foreman(timeout: float) -> Iterator[LiveForeman]:
    """Run a Foreman while the block does; see `snappea.testing.foreman`."""
    databases = json.dumps(_databases())
    with (
        tempfile.TemporaryDirectory(prefix="snappea-") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear,
        open(f"{directory}/log", "wb") as log,
    ):
        ear.bind(address := f"{directory}/notify")
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        ours = {VARIABLE: databases, SETTINGS: json.dumps(_changed(), default=_path)}
        environment = {**os.environ, **ours, "NOTIFY_SOCKET": address, "PYTHONPATH": paths}
        command = [sys.executable, "-c", "from snappea.testing.live import serve; serve()"]
        foreman = LiveForeman(subprocess.Popen(command, env=environment, stdout=log, stderr=log), log)
        try:
            _wait_for_start(ear, foreman, timeout)
            yield foreman
        finally:
            foreman.stop(timeout)
            _clear_away()


def _databases() -> dict[str, str | None]:
    """Return the name of each database that this test may use; None for each that is not its own.

    Raises RuntimeError if a Foreman could not see what this process writes there.
    """
    queue = current().DATABASE
    if _name_of(queue) is None:
        raise RuntimeError(f'A Foreman needs databases = {{"default", "{queue}"}} on the test.')
    return {alias: _name_of(alias) for alias in connections}


def _changed() -> dict[str, Any]:
    """Return the settings that the test runner or a test has changed, as far as JSON can carry them.

    Without them the process would send real mail, and write where the test does not look.
    """
    written = sys.modules.get(getattr(settings, "SETTINGS_MODULE", None) or "")
    found = {}
    for name in filter(str.isupper, dir(settings)):
        value = getattr(settings, name)
        if name != "DATABASES" and value != getattr(written, name, getattr(global_settings, name, None)):
            with suppress(TypeError, ValueError):
                json.dumps(value, default=_path)
                found[name] = value
    return found


def _path(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} is not for JSON")


def _name_of(alias: str) -> str | None:
    connection: Any = connections[alias]
    try:
        with connection.cursor():
            pass
    except (AssertionError, RuntimeError, ImproperlyConfigured, Error):  # refused, or there is none
        return None
    if connection.in_atomic_block:
        raise RuntimeError(
            f"{alias!r} is in a transaction, into which a Foreman does not see: use TransactionTestCase, "
            "LiveServerTestCase or django_db(transaction=True)."
        )
    name = str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        raise RuntimeError(
            f"The test database of {alias!r} is in memory, where a Foreman does not see it. Add to settings: "
            f'DATABASES["{alias}"]["TEST"] = {{"NAME": BASE_DIR / "test-{alias}.sqlite3"}}'
        )
    return name


def _wait_for_start(ear: socket.socket, foreman: LiveForeman, timeout: float) -> None:
    deadline = steady_clock() + timeout
    ear.settimeout(0.05)
    while steady_clock() < deadline and foreman._process.poll() is None:
        try:
            if READY in ear.recv(4096).decode().splitlines():
                return
        except TimeoutError:
            pass  # look whether it still lives
    raise RuntimeError(f"The Foreman did not start:\n{foreman.output()}")


def _clear_away() -> None:
    """Remove what a Foreman leaves beside a database; the test runner removes that itself."""
    if file := file_of(connect()):
        for path in (file.wakeup, file.lock, file.logbook):
            Path(path).unlink(missing_ok=True)


def serve() -> None:
    """Be the Foreman: in its process, before Django is set up."""
    import django
    from django.core.management import call_command

    databases: dict[str, Any] = settings.DATABASES
    for alias, name in json.loads(os.environ[VARIABLE]).items():
        if name is None:  # not the test's, and perhaps of value
            databases[alias] = {"ENGINE": "django.db.backends.dummy"}
        else:
            databases[alias]["NAME"] = name
    for name, value in json.loads(os.environ[SETTINGS]).items():
        setattr(settings, name, value)
    django.setup()
    call_command("runsnappea", "--no-reload")
