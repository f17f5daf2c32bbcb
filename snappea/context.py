"""The public import path of `TaskFilter`, for LOGGING, of `current_task`, and of its steps."""

from .tasks.context import TaskFilter as TaskFilter
from .tasks.context import current_task as current_task
from .tasks.steps import astep as astep
from .tasks.steps import cursor as cursor
from .tasks.steps import step as step
