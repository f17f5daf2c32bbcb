"""`runsnappea --reload`: watches the code with Django's reloader, and restarts the Foreman on a change."""

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
    """Watch the code in a thread, for as long as the process lives."""
    threading.Thread(target=_watch, args=[restart], name="snappea-reload", daemon=True).start()


def _watch(restart: Restart) -> None:
    reloader = get_reloader()

    def notice(path: Path) -> None:
        results = file_changed.send(sender=reloader, file_path=path)
        if any(is_handled for _receiver, is_handled in results):
            return  # a template, for instance, is just read again
        if error := _syntax_error(path):
            say(ERROR, "%s changed, but is invalid; the Foreman goes on with the old code: %r", path, error)
        else:
            restart.request(f"{path} changed")

    vars(reloader)["notify_file_changed"] = notice  # Django's own ends the process
    # Django watches the modules that were imported, but not one that raised while it was
    named = re.findall(r'File "(.+?)"', "\n".join(failure.traceback for failure in failures.values()))
    reloader.extra_files |= {Path(name).resolve() for name in named if os.path.isfile(name)}
    try:
        say(INFO, "Watching the code for changes with %s.", type(reloader).__name__)
        autoreload_started.send(sender=reloader)
        reloader.run_loop()
    except Exception as error:  # such as Watchman, when it goes away
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
