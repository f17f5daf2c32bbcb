"""What blocks is refused on an event loop: each time, whether a connection happens to be open or not."""

import inspect
import os
from asyncio import _get_running_loop

from django.core.exceptions import SynchronousOnlyOperation

#: Whose frames lie between a call and us.
_OURS = ("snappea.", "django.tasks.", "django_tasks.")
#: What is there for asynchronous code already.
_ASYNCHRONOUS = {"delay": "adelay", "enqueue": "aenqueue"}

#: The event loop that runs in this thread, or None; `asyncio.get_running_loop()` raises, which takes longer.
running_loop = _get_running_loop


def refuse_event_loop(owner: str = "", name: str = "") -> None:
    """Raise SynchronousOnlyOperation on an event loop, which the call would block.

    `owner`: how the caller writes what it calls a method of, for the cure. `name`: of the task. As everywhere
    in Django, the environment variable DJANGO_ALLOW_ASYNC_UNSAFE allows it.
    """
    if running_loop() is None or os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE"):
        return
    method, file, line = caller()
    written = f"{owner}.{method}" if owner else method
    cure = f"sync_to_async({written})(...)"
    if method in _ASYNCHRONOUS:
        cure = f"{owner}.{_ASYNCHRONOUS[method]}(...)"
    elif method == "status":  # a property
        cure = f"sync_to_async(lambda: {written})()"
    what = f"{name}: {method}()" if name else f"{written}()"
    raise SynchronousOnlyOperation(
        f"{what} was called on an event loop, at {file}:{line}, and would block it. Write: await {cure}"
    )


def caller() -> tuple[str, str, int]:
    """Return which of our functions was called from outside, and from which file and line."""
    frame, method = inspect.currentframe(), ""
    while frame and frame.f_globals.get("__name__", "").startswith(_OURS):
        method, frame = frame.f_code.co_name, frame.f_back
    return (method, frame.f_code.co_filename, frame.f_lineno) if frame else (method, "", 0)
