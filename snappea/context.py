"""The public import path of `TaskFilter`, for LOGGING, and `current_task`."""

from .tasks.context import TaskFilter as TaskFilter
from .tasks.context import current_task as current_task
