"""A Python that has imported Django, and forks a process for each command: it starts in half the time.

Only modules of Python and Django are imported before a fork. The new process has its own environment,
settings, output and arguments, and it imports Snappea itself, as if it had been executed. Run with
`python -m tests.warm FD`: FD is the number of a socket.
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
from pathlib import Path
from typing import IO

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
    "django.test.signals",
    "django.urls",
    "django.utils.translation.trans_real",
    "django.views.csrf",
    "django.views.debug",
    "importlib.metadata",
    "mmap",
    "sqlite3",
    "zipfile",
)
#: What an interpreter reads when it starts, so that a fork would come too late.
READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "TZ", "MALLOC_", "OPENSSL")


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

    def __init__(self, directory: Path) -> None:
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self._channel, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", str(theirs.fileno())],
                env=self.environment,
                cwd=directory,
                pass_fds=[theirs.fileno()],
            )
        self._lock = threading.RLock()
        self._started: list[int] = []
        self._exit_codes: dict[int, int] = {}
        self.cpu_seconds = 0.0

    def can_start(self, arguments: list[str], environment: dict[str, str]) -> bool:
        """Tell whether a fork is as good as an execution: the interpreter starts with the same variables."""
        is_known = arguments[0] == "-c" or arguments[:2] == ["-m", "django"]
        return is_known and _read_at_start(environment) == _read_at_start(self.environment)

    def start(self, arguments: list[str], environment: dict[str, str], output: IO[bytes]) -> Started:
        """Start `python` with these arguments, and its output in a file."""
        request = json.dumps({"arguments": arguments, "environment": environment}).encode()
        with self._lock:
            socket.send_fds(self._channel, [request], [output.fileno()])
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


def _read_at_start(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_START)}


def main() -> None:
    """Fork a process for each request, until the channel is closed. Each process returns here, and ends."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    arguments = serve(socket.socket(fileno=int(sys.argv[1])))
    if arguments:
        run(arguments)


def serve(channel: socket.socket) -> list[str]:
    """Return the arguments in a process that was forked; in this one nothing, once the channel is closed."""
    running: dict[int, int] = {}  # a descriptor of each process, and its pid
    while True:
        for ready in select.select([channel.fileno(), *running], [], [])[0]:
            if ready in running:
                os.close(ready)
                _send(channel, **_reaped(running.pop(ready)))
                continue
            message, descriptors, *_rest = socket.recv_fds(channel, 1_000_000, 1)
            if not message:
                return []
            request = json.loads(message)
            pid = os.fork()
            if not pid:
                for descriptor in (*running, channel.detach()):
                    os.close(descriptor)
                _become(request["environment"], descriptors[0])
                return list(request["arguments"])
            os.close(descriptors[0])
            running[os.pidfd_open(pid)] = pid
            _send(channel, pid=pid)


def _send(channel: socket.socket, **message: float) -> None:
    channel.send(json.dumps(message).encode())


def _reaped(pid: int) -> dict[str, float]:
    _pid, status, usage = os.wait4(pid, 0)
    exit_code = os.waitstatus_to_exitcode(status)
    return {"pid": pid, "exit_code": exit_code, "cpu_seconds": usage.ru_utime + usage.ru_stime}


def _become(environment: dict[str, str], output: int) -> None:
    """Let this process have its own environment and output."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ.clear()
    os.environ.update(environment)


def run(arguments: list[str]) -> None:
    """Do what `python` does with these arguments."""
    sys.orig_argv = [sys.executable, *arguments]
    option, what, *rest = arguments
    if option == "-m":
        sys.argv = [what, *rest]
        sys.path[0] = os.getcwd()
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *rest]
        sys.path[0] = ""
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        exec(compile(what, "<string>", "exec"), module.__dict__)


if __name__ == "__main__":
    main()
