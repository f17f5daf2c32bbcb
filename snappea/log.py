"""Safe logging: a handler's error never reaches a task, and a name never breaks its line."""

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial

from .errors import SoftTimeLimitExceeded, TaskRevoked

#: The Foreman's logger. The logger `snappea` configures all of Snappea's.
foreman = logging.getLogger("snappea.foreman")
#: Raised in a task's thread to end the task, even within a log call.
ENDINGS = (TaskRevoked, SoftTimeLimitExceeded)
_said_until: dict[str, float] = {}


def say(
    level: int,
    message: str,
    *args: object,
    logger: logging.Logger = foreman,
    stacklevel: int = 1,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Log a line. Whatever a handler raises is dropped. `extra`: attributes of the record."""
    try:
        logger.log(level, message, *args, stacklevel=stacklevel + 1, extra=extra)
    except ENDINGS:  # for the task in this thread
        raise
    except BaseException:  # even SystemExit; it cannot be reported
        pass


def say_failure(
    message: str, *args: object, failure: BaseException | None, text: str, extra: Mapping[str, object]
) -> None:
    """Log an error with its exception. `text`: the formatted exception. `extra`: attributes of the record."""
    try:
        if foreman.isEnabledFor(logging.ERROR):
            exc_info = None if failure is None else (type(failure), failure, failure.__traceback__)
            file, line, function, _stack = foreman.findCaller(stacklevel=2)
            place = foreman.name, logging.ERROR, file, line
            record = foreman.makeRecord(*place, message, args, exc_info, function, extra=extra)
            record.exc_text = text  # of limited length
            foreman.handle(record)
    except ENDINGS:
        raise
    except BaseException:
        pass


def say_seldom(
    level: int,
    message: str,
    *args: object,
    every: float = 60.0,
    logger: logging.Logger = foreman,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Log a line unless the same line was logged within the last `every` seconds."""
    line, now = message % args, time.monotonic()
    for old in [old for old, until in list(_said_until.items()) if now >= until]:
        _said_until.pop(old, None)
    if line not in _said_until:
        _said_until[line] = now + every
        say(level, message, *args, logger=logger, stacklevel=2, extra=extra)


#: Log a line unless this process has logged the same line before.
say_once = partial(say_seldom, every=math.inf)


#: The attributes of every record, with those that formatters and asyncio add.
_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON, with its extra attributes."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. `time` is in UTC. Attributes that are "-" are left out."""
        moment = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
        line: dict[str, object] = {"time": f"{moment.isoformat(timespec='microseconds')}Z"}
        line |= {"level": record.levelname, "logger": record.name, "message": record.getMessage()}
        line |= {key: value for key, value in vars(record).items() if key not in _USUAL and value != "-"}
        if record.exc_text or record.exc_info:
            # one of the two is there
            line["exception"] = record.exc_text or self.formatException(record.exc_info)  # type: ignore[arg-type]
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line, default=repr)


def shows(level: int) -> bool:
    """Tell whether a handler shows the Foreman's log lines of a level."""
    record = foreman.makeRecord(foreman.name, level, __file__, 0, "", (), None)
    return foreman.isEnabledFor(level) and any(_handles(one, record) for one in handlers_of(foreman))


def handlers_of(logger: logging.Logger | None) -> Iterator[logging.Handler]:
    """Return the handlers that get a logger's records."""
    while logger:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _handles(handler: logging.Handler, record: logging.LogRecord) -> bool:
    try:
        is_let_through = record.levelno >= handler.level and bool(handler.filter(record))
    except Exception:  # in a filter of the project
        return False
    return is_let_through and not isinstance(handler, logging.NullHandler)


def clean(text: str) -> str:
    """Return a text with escaped control characters, so that it stays on one log line.

    For other types, from a row that was written by hand, return the repr().
    """
    if not isinstance(text, str):
        return repr(text)
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def storable(text: str) -> str:
    """Return a text that every database can store: without lone surrogates and NUL characters."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def shortened(text: str, most: int) -> str:
    """Return a text without its middle if it is longer than `most` characters."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n... {len(text) - most} characters left out ...\n{text[-half:]}"
