"""A log handler that fails, as one does whose disk is full or whose server is away."""

import logging


class BrokenHandler(logging.Handler):
    """Raises for every line."""

    def handle(self, record: logging.LogRecord) -> bool:
        raise OSError(f"cannot log: {record.getMessage()}")
