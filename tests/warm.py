"""A Python that has imported Django, and forks a process for each command: it starts in half the time.

Only modules of Python, Django and drivers are imported before a fork. The new process has its own
environment, settings, output and arguments, and it imports Snappea itself, as if it had been executed. Run
with `python -m tests.warm FD FD`: the numbers of two sockets.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import warnings
from pathlib import Path
from typing import IO

from django import VERSION

#: What a command of a site imports anyway, except for what needs the settings.
IMPORTED = (
    "asgiref.sync",
    "ast",
    "ctypes",
    "django.contrib.auth.hashers",
    "django.core.cache.backends.locmem",
    "django.core.checks",
    "django.core.mail",
    "django.core.management.commands.makemigrations",
    "django.core.management.commands.migrate",
    "django.core.serializers.json",
    "django.db.backends.sqlite3.base",
    "django.db.migrations.autodetector",
    "django.db.migrations.executor",
    "django.db.models",
    "django.forms",
    "django.http",
    "django.template.backends.django",
    "django.urls",
    "django.utils.translation.trans_real",
    "django.views.csrf",
    "django.views.debug",
    "importlib.metadata",
    "mmap",
    "sqlite3",
    "zipfile",
)
#: What it imports where it is installed.
IMPORTED_IF_THERE = (
    "django.db.backends.postgresql.base",  # with psycopg
    "django.tasks.backends.immediate" if VERSION >= (6, 0) else "django_tasks.backends.immediate",
    "inotify_simple",
)
#: What an interpreter reads when it starts, so that a fork would come too late.
READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "TZ", "MALLOC_", "OPENSSL")

#: A `python` for shells: it lets the Python that forks run Django's commands, and executes all else.
CLIENT = """
import json, os, re, signal, socket, sys

arguments, environment = sys.argv[1:], dict(os.environ)
if not re.match(r"manage[.]py |(-W ignore )?-m (django|example_project[.]\\w+) ", " ".join(arguments) + " "):
    os.execv(sys.executable, [sys.executable, *arguments])
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
    channel.connect(os.path.join(os.path.dirname(os.path.abspath(__file__)), "socket"))
    request = {"arguments": arguments, "environment": environment, "cwd": os.getcwd()}
    socket.send_fds(channel, [json.dumps(request).encode()], [0, 1, 2])
    pid = json.loads(channel.recv(1000))["pid"]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: os.kill(pid, number))
    code = json.loads(channel.recv(1000))["exit_code"]
os._exit(code if code >= 0 else 128 - code)
"""


class Started:
    """A forked process, with the methods of a Popen that tests need."""

    def __init__(self, warm: "Warm", pid: int) -> None:
        self._warm = warm
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        if self.returncode is None:
            self.returncode = self._warm.exit_code(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended. Raises TimeoutExpired."""
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self._warm.has_news(0.05)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Tell it to stop."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


class Warm:
    """The Python that forks, as this process sees it."""

    def __init__(self, directory: Path, programs: Path) -> None:
        #: A directory with a `python` that asks for a fork as well: for shells.
        self.programs = programs
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self._channel, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        program = programs / "python"
        program.write_text(f"#!{sys.executable} -IS\n{CLIENT}")
        program.chmod(0o755)
        with theirs, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(programs / "socket"))
            listener.listen(100)
            descriptors = (theirs.fileno(), listener.fileno())
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", *map(str, descriptors)],
                env=self.environment,
                cwd=directory,
                pass_fds=descriptors,
            )
        self._lock = threading.RLock()
        self._started: list[int] = []
        self._exit_codes: dict[int, int] = {}
        self.cpu_seconds = 0.0

    def can_start(self, arguments: list[str], environment: dict[str, str]) -> bool:
        """Tell whether a fork is as good as an execution."""
        return can_fork(arguments, environment, self.environment)

    def start(self, arguments: list[str], environment: dict[str, str], output: IO[bytes]) -> Started:
        """Start `python` with these arguments, and its output in a file."""
        request = json.dumps({"arguments": arguments, "environment": environment}).encode()
        with self._lock:
            socket.send_fds(self._channel, [request], [output.fileno(), output.fileno()])
            while not self._started:
                self._hear()
            return Started(self, self._started.pop())

    def exit_code(self, pid: int) -> int | None:
        """Return the exit code of a process, or None while it runs."""
        with self._lock:
            while pid not in self._exit_codes and self.has_news(0):
                self._hear()
            return self._exit_codes.get(pid)

    def has_news(self, wait: float) -> bool:
        """Tell whether a process has ended. Waits a few seconds for one."""
        return bool(select.select([self._channel], [], [], wait)[0])

    def _hear(self) -> None:
        message = self._channel.recv(1000)
        assert message, f"The Python that forks has ended with {self._popen.wait()}."
        told = json.loads(message)
        if "exit_code" in told:
            self._exit_codes[told["pid"]] = told["exit_code"]
            self.cpu_seconds += told["cpu_seconds"]
        else:
            self._started.append(told["pid"])

    def close(self) -> None:
        """End it."""
        self._channel.close()
        self._popen.wait()


def is_read_at_start(variable: str) -> bool:
    """Tell whether an interpreter reads an environment variable when it starts."""
    return variable.startswith(READ_AT_START)


def can_fork(arguments: list[str], environment: dict[str, str], ours: dict[str, str]) -> bool:
    """Tell whether a fork does what an execution does: an interpreter with the same variables runs Django."""

    def read_at_start(variables: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in variables.items() if is_read_at_start(name)}

    is_known = arguments[:1] in (["-c"], ["manage.py"]) or arguments[:2] == ["-m", "django"]
    return is_known and read_at_start(environment) == read_at_start(ours)


def main() -> None:
    """Fork a process for each request, until the channel is closed. Each process returns here, and ends."""
    for name in IMPORTED:
        importlib.import_module(name)
    for name in IMPORTED_IF_THERE:
        with contextlib.suppress(Exception):  # Django raises its own error without psycopg
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    channel, listener = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    arguments = serve(channel, listener)
    if arguments:
        run(arguments)


def serve(channel: socket.socket, listener: socket.socket) -> list[str]:
    """Return the arguments in a process that was forked; in this one nothing, once the channel is closed."""
    askers = {channel.fileno(): channel}
    #: By a descriptor of each process: its pid, and the socket that asked.
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for ready in select.select([listener.fileno(), *askers, *running], [], [])[0]:
            if ready == listener.fileno():
                asker, _address = listener.accept()
                askers[asker.fileno()] = asker
            elif ready in running:
                pid, asker = running.pop(ready)
                os.close(ready)
                _send(asker, **_reaped(pid))
            else:
                asker = askers[ready]
                message, descriptors, *_rest = socket.recv_fds(asker, 1_000_000, 3)
                if not message and asker is channel:
                    return []
                if not message:
                    askers.pop(ready).close()
                    continue
                pid = os.fork()
                if not pid:
                    ours = (*running, listener.detach(), *(each.detach() for each in askers.values()))
                    for descriptor in ours:
                        os.close(descriptor)
                    return _become(descriptors, **json.loads(message))
                for descriptor in descriptors:
                    os.close(descriptor)
                running[os.pidfd_open(pid)] = pid, asker
                _send(asker, pid=pid)


def _send(asker: socket.socket, **message: float) -> None:
    with contextlib.suppress(OSError):  # it does not wait for the answer
        asker.send(json.dumps(message).encode())


def _reaped(pid: int) -> dict[str, float]:
    _pid, status, usage = os.wait4(pid, 0)
    exit_code = os.waitstatus_to_exitcode(status)
    return {"pid": pid, "exit_code": exit_code, "cpu_seconds": usage.ru_utime + usage.ru_stime}


def _become(
    descriptors: list[int], arguments: list[str], environment: dict[str, str], cwd: str = ""
) -> list[str]:
    """Let this process have its own files, environment, directory and path. Returns its arguments."""
    for number, descriptor in enumerate(descriptors, 3 - len(descriptors)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    before = len(_python_path())
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd or ".")
    sys.path[1 : 1 + before] = _python_path()
    del sys.modules["tests"]  # a project may have its own
    importlib.invalidate_caches()
    return arguments


def _python_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def run(arguments: list[str]) -> None:
    """Do what `python` does with these arguments."""
    sys.orig_argv = [sys.executable, *arguments]
    if arguments[0] == "-W":
        sys.warnoptions.append(arguments[1])
        warnings.simplefilter("ignore")
        arguments = arguments[2:]
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = os.getcwd()
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        return
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        sys.path[0] = ""
        code = compile(arguments[1], "<string>", "exec")
    else:
        sys.argv = arguments
        sys.path[0] = os.getcwd()
        module.__file__ = arguments[0]
        code = compile(Path(arguments[0]).read_bytes(), arguments[0], "exec")
    exec(code, module.__dict__)


if __name__ == "__main__":
    main()
