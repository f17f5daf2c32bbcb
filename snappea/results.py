"""What became of a call."""

from .tasks.results import AsyncResult as AsyncResult
