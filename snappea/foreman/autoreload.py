"""`runsnappea --reload`: watch the code with Django's autoreloader, and restart on a change."""

import ast
import os
import re
import threading
from logging import ERROR, INFO
from pathlib import Path

from django.utils.autoreload import autoreload_started, file_changed, get_reloader

from ..log import say
from ..tasks.discovery import failures
from .restart import Restart


def watch(restart: Restart) -> None:
    """Watch the code in a background thread."""
    threading.Thread(target=_watch, args=[restart], name="snappea-reload", daemon=True).start()


def _watch(restart: Restart) -> None:
    reloader = get_reloader()

    def notice(path: Path) -> None:
        results = file_changed.send(sender=reloader, file_path=path)
        if any(is_handled for _receiver, is_handled in results):
            return  # such as a template, which needs no restart
        if error := _syntax_error(path):
            say(ERROR, "%s changed, but is invalid; the Foreman keeps the old code: %r", path, error)
        else:
            restart.request(f"{path} changed")

    vars(reloader)["notify_file_changed"] = notice  # Django's own ends the process
    # Django watches imported modules, but not those that raised while they were imported
    named = re.findall(r'File "(.+?)"', "\n".join(failure.traceback for failure in failures.values()))
    reloader.extra_files |= {Path(name).resolve() for name in named if os.path.isfile(name)}
    try:
        say(INFO, "Watching the code for changes with %s.", type(reloader).__name__)
        autoreload_started.send(sender=reloader)
        reloader.run_loop()
    except Exception as error:  # such as a lost connection to Watchman
        say(ERROR, "No longer watching the code for changes: %r", error)


def _syntax_error(path: Path) -> Exception | None:
    try:
        if path.suffix == ".py":
            ast.parse(path.read_bytes(), path)
    except (SyntaxError, ValueError, RecursionError) as error:
        return error
    except OSError:  # it was deleted
        pass
    return None
