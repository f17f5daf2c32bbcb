"""The names that LOGGING and tasks use: `snappea.context.TaskFilter`, `current_task`."""

from .tasks.context import TaskFilter as TaskFilter
from .tasks.context import current_task as current_task
