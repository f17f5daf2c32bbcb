"""`runsnappea --reload`: watches the code, and calls for a new start once what changed can be started."""

import os
import re
import subprocess
import threading
import time
from logging import ERROR, INFO
from pathlib import Path

from django.utils.autoreload import autoreload_started, file_changed, get_reloader

from ..errors import CannotStart
from ..log import say
from ..tasks.discovery import failures
from .restart import HOME, Restart, command_line

#: How long a rehearsal may take, in seconds.
PATIENCE = 60.0
#: The most that is shown of what went wrong in one, in characters.
MAX_COMPLAINT = 4000
_REHEARSAL = "SNAPPEA_REHEARSAL"


def is_rehearsal() -> bool:
    """Tell whether this process only tries whether a Foreman could start."""
    return _REHEARSAL in os.environ


def require_no_new_failure() -> None:
    """In a rehearsal, raise CannotStart if a task module fails to import that the Foreman has imported."""
    if is_rehearsal():
        known = os.environ[_REHEARSAL].split()
        for module, failure in failures.items():
            if module not in known:
                raise CannotStart(f"Cannot import {module}.\n{failure.traceback}")


def watch(restart: Restart) -> None:
    """Watch the code in a thread, for as long as the process lives.

    A change is first rehearsed: another process starts the same command line, up to where it would
    begin to work. If that fails, the Foreman goes on with the code that it has.
    """
    watcher = _Watcher(restart)
    threading.Thread(target=watcher.run, name="snappea-reload", daemon=True).start()


class _Watcher:
    def __init__(self, restart: Restart) -> None:
        self._restart = restart
        self._rehearsed_at = 0.0
        self._reloader = get_reloader()
        vars(self._reloader)["notify_file_changed"] = self._notice  # its own ends the process

    def run(self) -> None:
        try:
            say(INFO, "Watching the code for changes with %s.", type(self._reloader).__name__)
            autoreload_started.send(sender=self._reloader)
            self._watch_what_failed("\n".join(failure.traceback for failure in failures.values()))
            self._reloader.run_loop()
        except Exception as error:  # such as Watchman, when it goes away
            say(ERROR, "No longer watching the code for changes: %r", error)

    def _notice(self, path: Path) -> None:
        results = file_changed.send(sender=self._reloader, file_path=path)
        if any(result for _receiver, result in results) or self._was_rehearsed(path):
            return  # a template, for instance, is just read anew
        self._rehearsed_at = time.time()
        if complaint := _rehearse():
            self._restart.call_for("")
            self._watch_what_failed(complaint)
            say(
                ERROR,
                "%s changed, but so the Foreman could not start; it goes on with the old code.\n%s",
                path,
                complaint,
            )
        else:
            self._restart.call_for(f"{path} changed")

    def _was_rehearsed(self, path: Path) -> bool:
        """Tell whether a change that is only noticed now was there at the last rehearsal already."""
        try:
            return os.stat(path).st_ctime < self._rehearsed_at
        except OSError:
            return False

    def _watch_what_failed(self, complaint: str) -> None:
        """Watch the files of a traceback: what could not be imported is not among our modules."""
        found = {Path(name) for name in re.findall(r'File "(.+?)"', complaint)}
        self._reloader.extra_files |= {path.resolve() for path in found if path.is_file()}


def _rehearse() -> str:
    """Start the command line as it would be started, and return what went wrong, or ""."""
    try:
        ended = subprocess.run(
            command_line(),
            cwd=HOME,
            env={**os.environ, _REHEARSAL: " ".join(failures)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, subprocess.SubprocessError) as error:
        return repr(error)
    return ended.stdout[-MAX_COMPLAINT:] or f"Exit code {ended.returncode}" if ended.returncode else ""
