"""A site for a test: a directory with both databases, and the processes that use them."""

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.db import connections

from tests.playground.ledger import Ledger
from tests.servers import Postgres
from tests.warm import Started, Warm

if TYPE_CHECKING:
    from snappea import TaskFunction

#: What makes a task of a function.
Made = Callable[[Callable[..., Any]], "TaskFunction[..., Any]"]

ROOT = Path(__file__).parent.parent
#: The password of the users that `tests.web.user` makes.
PASSWORD = "open sesame"
#: A busy machine is slow: nothing here waits for so long, in seconds, unless something is wrong.
DEADLINE = 180.0


def wait_until(condition: Callable[[], Any], what: str = "", deadline: float = DEADLINE) -> Any:
    """Return the condition's value as soon as it is true. Raises AssertionError after the deadline."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {deadline} s in vain: {what or condition}"
        time.sleep(0.005)
    return value


class Process:
    """A `manage.py` command, or a program, in the site; its output lies in a file."""

    #: What forks processes, instead of executing each. None: they are executed.
    warm: Warm | None = None

    def __init__(
        self,
        site: "Site",
        arguments: list[str],
        wrapper: list[str],
        variables: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self.log = site.directory / f"process-{len(site.processes)}.log"
        environment = {**site.environment(**settings), **(variables or {})}
        self.popen: subprocess.Popen[bytes] | Started
        with self.log.open("wb") as output:
            if not wrapper and Process.warm and Process.warm.can_start(arguments, environment):
                self.popen = Process.warm.start(arguments, environment, output)
            else:
                command = [*wrapper, sys.executable, *arguments]
                self.popen = subprocess.Popen(
                    command, env=environment, cwd=ROOT, stdout=output, stderr=output
                )
        self.wrapped = bool(wrapper)
        site.processes.append(self)

    @property
    def pid(self) -> int:
        """The process itself, not what wraps it."""
        if not self.wrapped:
            return self.popen.pid
        children = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text().split()
        return int(children[0])

    def output(self) -> str:
        """Return what it wrote so far."""
        return self.log.read_text(errors="replace")

    def wait_for_output(self, pattern: str) -> "re.Match[str]":
        """Wait until a pattern is in the output. Raises AssertionError if the process ends before."""

        def found() -> "re.Match[str] | None":
            match = re.search(pattern, self.output())
            if match is None and self.popen.poll() is not None:
                match = re.search(pattern, self.output())
                assert match, f"ended with {self.popen.returncode}:\n{self.output()}"
            return match

        match: re.Match[str] = wait_until(found, f"{pattern!r} in {self.output()}")
        return match

    def send(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for its end, and return the exit code."""
        return self.popen.wait(DEADLINE)

    def stop(self) -> int:
        """Tell it to stop, and return the exit code."""
        self.send(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Kill it as hard as can be."""
        self.send(signal.SIGKILL)
        self.wait()


class Site:
    """A directory with a site's databases, its ledger, and its processes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = directory / "snappea.sqlite3"
        self.ledger = Ledger(directory)
        self.processes: list[Process] = []
        self.settings: dict[str, Any] = {"SYNCHRONOUS": "NORMAL", "IN_TESTS": "write"}
        self.variables: dict[str, str] = {}

    def move_database(self, directory: Path) -> None:
        """Let the queue's database lie in another directory, for this process and all that follow."""
        self.database = directory / "snappea.sqlite3"
        shutil.move(self.directory / "snappea.sqlite3", self.database)
        connections["snappea"].close()
        connections["snappea"].settings_dict["NAME"] = str(self.database)
        self.variables["SNAPPEA_TEST_DATABASE"] = str(self.database)

    def environment(self, **settings: Any) -> dict[str, str]:
        """Return the environment of a process of this site."""
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "SNAPPEA_TEST_DIR": str(self.directory),
            "SNAPPEA_TEST_SETTINGS": json.dumps({**self.settings, **settings}),
            "PYTHONUNBUFFERED": "1",
            **self.variables,
        }

    def foreman(self, *flags: str, wrapper: list[str] | None = None, **settings: Any) -> Process:
        """Start `runsnappea` and wait until it is at work."""
        process = self.manage("runsnappea", *flags, wrapper=wrapper, **settings)
        if "-v0" in flags:  # it says nothing, but it signs its lock
            lock = Path(f"{self.database}-lock")
            wait_until(lambda: lock.exists() and f"pid {process.pid} on" in lock.read_text())
        else:
            process.wait_for_output("tasks ready")
        return process

    def hasty_foreman(self, **constants: float) -> Process:
        """Start a Foreman with other constants than its own, so that a test need not wait so long."""
        code = (
            "from snappea.foreman import in_flight, loop, sqlite_host; from snappea.workers import threads\n"
        )
        code += "from snappea.workers.processes import supervisor\n"
        code += "".join(f"{name.replace('__', '.')} = {value}\n" for name, value in constants.items())
        code += "from django.core.management import call_command\ncall_command('runsnappea')\n"
        process = self.program(code)
        process.wait_for_output("tasks ready")
        return process

    def manage(self, *arguments: str, wrapper: list[str] | None = None, **settings: Any) -> Process:
        """Start a management command."""
        return Process(self, ["-m", "django", *arguments], wrapper or [], **settings)

    def program(self, code: str, *arguments: str, wrapper: list[str] | None = None) -> Process:
        """Start a program in which Django is set up and the playground's tasks are imported."""
        preamble = "import sys, django\ndjango.setup()\nfrom tests.playground.tasks import *\n"
        return Process(self, ["-c", preamble + code, *arguments], wrapper or [])

    def sql(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement on the queue's database, outside of Django."""
        connection = sqlite3.connect(self.database, timeout=DEADLINE, isolation_level=None)
        try:
            return connection.execute(statement, parameters).fetchall()
        finally:
            connection.close()

    def counts(self) -> dict[str, int]:
        """Return how many rows have which status."""
        return dict(self.sql("SELECT status, count(*) FROM snappea_task GROUP BY status"))

    def wait_until_empty(self) -> None:
        """Wait until nothing is ready or running."""
        wait_until(lambda: not {"ready", "running"} & set(self.counts()), f"{self.counts()} to be worked off")

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            if process.popen.poll() is None:
                with contextlib.suppress(OSError, IndexError):
                    process.send(signal.SIGKILL)  # the process itself: without its tracer it would live on
                process.popen.kill()
                process.popen.wait()


class PostgresSite(Site):
    """A site with its queue on PostgreSQL."""

    def __init__(self, directory: Path, server: Postgres, database: str) -> None:
        super().__init__(directory)
        server.create(database, "migrated")
        self.server = server
        self.name = database
        self.variables["SNAPPEA_TEST_QUEUE"] = json.dumps(server.settings(database))

    def lead_to(self, port: int) -> None:
        """Let the processes that follow connect to another port, such as a proxy's."""
        settings = {**self.server.settings(self.name), "PORT": str(port)}
        self.variables["SNAPPEA_TEST_QUEUE"] = json.dumps(settings)

    def sql(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement on the queue's database, outside of Django."""
        with self.server.connect(self.name) as connection:
            done = connection.execute(statement.replace("?", "%s"), parameters or None)
            return done.fetchall() if done.description else []
