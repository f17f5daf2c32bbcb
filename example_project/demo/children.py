"""The demo's child processes.

Each has a session of its own: Ctrl-C in the terminal reaches only the parent, which then stops the
children in order.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from example_project.settings import BASE_DIR

#: How long a child may take to stop, in seconds: longer than the Foreman waits for its tasks.
PATIENCE = 15.0


class ChildDied(Exception):
    """A child process ended unexpectedly, or failed."""


class Child:
    """A Python program that runs beside the demo until stop()."""

    def __init__(
        self,
        name: str,
        arguments: list[str],
        log: Path,
        stdin: int = subprocess.DEVNULL,
        stdout: int | None = None,
    ) -> None:
        """Start it. Its errors go to the log, and so does its output unless `stdout` is given."""
        self.name = name
        self.log = log
        self._is_swept = False
        with log.open("ab") as logged:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=BASE_DIR,
                stdin=stdin,
                stdout=logged if stdout is None else stdout,
                stderr=logged,
                start_new_session=True,
            )

    def has_spoken(self) -> bool:
        """Tell whether its log contains anything: the servers log a line when they start."""
        return self.log.stat().st_size > 0

    def is_done(self) -> bool:
        """Tell whether it has ended. Raises ChildDied if it failed."""
        exit_code = self._exit_code()
        if exit_code:
            raise ChildDied(self._report(exit_code))
        return exit_code == 0

    def require_alive(self) -> None:
        """Raise ChildDied if it has ended."""
        if self.is_done():
            raise ChildDied(self._report(0))

    def stop(self) -> None:
        """Stop it, unless it has ended. Raises ChildDied if it fails."""
        if self._exit_code() is not None:
            return
        self._process.terminate()
        give_up = time.monotonic() + PATIENCE
        while (exit_code := self._exit_code()) is None:
            if time.monotonic() > give_up:
                self._process.kill()
            time.sleep(0.01)
        if exit_code not in (0, -signal.SIGTERM):
            raise ChildDied(self._report(exit_code))

    def _exit_code(self) -> int | None:
        exit_code = self._process.poll()
        if exit_code is not None and not self._is_swept:
            self._is_swept = True  # once, and now: later the pid may belong to another process
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it left no process behind, as it should
        return exit_code

    def _report(self, exit_code: int) -> str:
        how = f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"
        tail = self.log.read_text(errors="replace").splitlines()[-15:]
        return "\n".join([f"{self.name} ended {how}. The end of {self.log}:", *(tail or ["(it is empty)"])])
