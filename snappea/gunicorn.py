"""gunicorn brings the Foreman along, with one line in `gunicorn.conf.py`.

from snappea.gunicorn import on_exit, on_reload, when_ready
"""

import os
import sys
from typing import Any

from . import companion


def when_ready(server: Any) -> None:
    """Start a Foreman, beside the workers."""
    paths = [*(server.cfg.pythonpath or "").split(","), os.environ.get("PYTHONPATH", "")]
    application = getattr(server.app, "app_uri", None) or ""
    command = [sys.executable, "-m", "snappea.gunicorn", application, "runsnappea", "--wait"]
    companion.start(command, PYTHONPATH=os.pathsep.join(filter(None, paths)))


def on_reload(server: Any) -> None:
    """Replace the Foreman with one that has the new code."""
    when_ready(server)


def on_exit(_server: Any) -> None:
    """Stop the Foreman, and wait until it has ended."""
    companion.stop()


if __name__ == "__main__":
    from django.core.management import execute_from_command_line
    from gunicorn.util import import_app

    if sys.argv[1]:
        import_app(sys.argv[1])  # it finds the settings as it does in the workers
    execute_from_command_line(["django", *sys.argv[2:]])
