"""Every exception of Snappea's own.

SnappeaError
├── ConfigurationError      a setting is wrong (also an ImproperlyConfigured)
├── TaskDefinitionError     a @task cannot be what it is declared to be; raised at import
├── UnserializableArgument  an argument is not strict JSON (also a TypeError)
├── ArgumentsTooLarge       the arguments exceed MAX_ARGUMENT_BYTES (also a ValueError)
├── EnqueueError            the queue's database refused; nothing was written (also an OperationalError)
├── UnknownTask             a row names what is no task; kept on the row
├── UnreadableArguments     a row's arguments cannot be read; kept on the row
└── CannotStart             the Foreman refuses to start, and says why

An error's message says what is wrong and what to do about it.
"""

from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError


class SnappeaError(Exception):
    """What all of Snappea's own exceptions have in common."""


class ConfigurationError(SnappeaError, ImproperlyConfigured):
    """A setting is wrong. `manage.py check` reports the same, all at once."""


class TaskDefinitionError(SnappeaError):
    """A function cannot be a task as declared: its name is taken, or it cannot be found by name."""


class UnserializableArgument(SnappeaError, TypeError):
    """An argument is not strict JSON; nothing was written."""


class ArgumentsTooLarge(SnappeaError, ValueError):
    """The arguments take more than SNAPPEA["MAX_ARGUMENT_BYTES"] bytes; nothing was written."""


class EnqueueError(SnappeaError, OperationalError):
    """The queue's database refused the task (full, locked, not migrated); nothing was written."""


class UnknownTask(SnappeaError):
    """A row names something that is not a task in an installed app."""


class UnreadableArguments(SnappeaError):
    """A row's `args` is not a JSON list, or its `kwargs` is not a JSON object."""


class CannotStart(SnappeaError):
    """The Foreman cannot do its work here: another one runs, or the database is not ready."""
