"""Log lines that do no harm: no handler's error reaches a task, and no name breaks its line."""

import logging
import math
import time
from functools import partial

from .errors import SoftTimeLimitExceeded, TaskRevoked

#: The Foreman's logger. To configure all of Snappea's, configure `snappea`.
foreman = logging.getLogger("snappea.foreman")
#: Raised in a task's thread to end it, wherever that is.
ENDINGS = (TaskRevoked, SoftTimeLimitExceeded)
_said_until: dict[str, float] = {}


def say(
    level: int, message: str, *args: object, logger: logging.Logger = foreman, stacklevel: int = 1
) -> None:
    """Log a line as the Foreman. Nothing that a handler raises gets out."""
    try:
        logger.log(level, message, *args, stacklevel=stacklevel + 1)
    except ENDINGS:  # meant for the task that runs in this thread
        raise
    except BaseException:  # even SystemExit; there is nowhere left to report it
        pass


def say_failure(
    message: str, *args: object, failure: BaseException | None, text: str, **more: object
) -> None:
    """Log an error with its exception. `text`: how that is shown. `more`: attributes of the record."""
    try:
        if foreman.isEnabledFor(logging.ERROR):
            exc_info = None if failure is None else (type(failure), failure, failure.__traceback__)
            file, line, function, _stack = foreman.findCaller(stacklevel=2)
            place = foreman.name, logging.ERROR, file, line
            record = foreman.makeRecord(*place, message, args, exc_info, function, extra=more)
            record.exc_text = text  # of a bounded length, and formatted already
            foreman.handle(record)
    except ENDINGS:
        raise
    except BaseException:
        pass


def say_seldom(
    level: int, message: str, *args: object, every: float = 60.0, logger: logging.Logger = foreman
) -> None:
    """Log a line unless the very same was logged within the last `every` seconds."""
    line, now = message % args, time.monotonic()
    for old in [old for old, until in list(_said_until.items()) if now >= until]:
        _said_until.pop(old, None)
    if line not in _said_until:
        _said_until[line] = now + every
        say(level, message, *args, logger=logger, stacklevel=2)


#: Log a line unless this process has logged the very same before.
say_once = partial(say_seldom, every=math.inf)


def shows(level: int) -> bool:
    """Tell whether any handler shows what the Foreman logs at a level."""
    logger: logging.Logger | None = foreman if foreman.isEnabledFor(level) else None
    record = foreman.makeRecord(foreman.name, level, __file__, 0, "", (), None)
    while logger:
        if any(_handles(handler, record) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def _handles(handler: logging.Handler, record: logging.LogRecord) -> bool:
    try:
        is_let_through = record.levelno >= handler.level and bool(handler.filter(record))
    except Exception:  # the project's own filter
        return False
    return is_let_through and not isinstance(handler, logging.NullHandler)


def clean(text: str) -> str:
    """Return a text with its control characters escaped, so that it stays on its line of a log.

    Anything else, from a row that was written by hand, comes as repr().
    """
    if not isinstance(text, str):
        return repr(text)
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def shortened(text: str, most: int) -> str:
    """Return a text without its middle if it is longer than `most` characters."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n... {len(text) - most} characters left out ...\n{text[-half:]}"
