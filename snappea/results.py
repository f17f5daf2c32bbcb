"""What became of a call."""

from .tasks.engine import AsyncResult as AsyncResult
