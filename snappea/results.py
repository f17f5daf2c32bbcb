"""The public import path of `AsyncResult`."""

from .tasks.results import AsyncResult as AsyncResult
