"""What is pointed out while developing, with DEBUG on."""

import inspect
import logging

from django.db import connections

from .conf import current

logger = logging.getLogger("snappea.tasks")
_warned: set[tuple[str, int]] = set()


def warn_of_open_transaction() -> None:
    """Say once per call site that the task may start before the caller's transaction commits."""
    used = [connection for connection in connections.all(initialized_only=True) if connection.in_atomic_block]
    used = [connection for connection in used if connection.alias != current().DATABASE]
    if not used:
        return
    frame = inspect.currentframe()
    while frame and frame.f_globals.get("__name__", "").startswith("snappea."):
        frame = frame.f_back
    site = (frame.f_code.co_filename, frame.f_lineno) if frame else ("", 0)
    if site not in _warned:
        _warned.add(site)
        logger.warning(
            "%s:%d calls delay() inside an open transaction of %r: the task may start before the commit, "
            "and will run even after a rollback. delay_on_commit() waits for the commit.",
            *site,
            used[0].alias,
        )
