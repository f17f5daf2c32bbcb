"""The public import path of `AsyncResult`."""

from .tasks.engine import AsyncResult as AsyncResult
