"""A log handler that fails, as if its disk were full or its server down."""

import itertools
import logging

_ERRORS = itertools.cycle([OSError, SystemExit, KeyboardInterrupt, GeneratorExit])


class BrokenHandler(logging.Handler):
    """Raises for every line."""

    def handle(self, record: logging.LogRecord) -> bool:
        raise next(_ERRORS)(f"cannot log: {record.getMessage()}")
