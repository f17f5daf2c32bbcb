"""The signals around a task. The sender is the TaskFunction.

Errors of receivers are logged, and do not affect the task.

>>> @receiver(task_failed)
... def count(sender, id, exception, **kwargs): ...

All but `task_enqueued` and `task_interrupted` are sent in the worker's thread, before the outcome is written
to the row.
"""

from typing import Any

from django.dispatch import Signal

#: A call was written, but perhaps not yet committed. `id`: of its row.
task_enqueued = Signal()
#: A task is about to run. `id`, `attempt`: 1 for the first.
task_started = Signal()
#: A task returned. `id`, `result`.
task_succeeded = Signal()
#: A task raised, and is not retried. `id`, `exception`.
task_failed = Signal()
#: A task raised, and will be retried. `id`, `exception`, `delay` in seconds.
task_retried = Signal()
#: The Foreman died or stopped while a task ran. `id`, `status`: the row's new one. The sender is None if no
#: task has the row's name.
task_interrupted = Signal()


def tell(signal: Signal, sender: object, **facts: Any) -> None:
    """Send a signal if it has receivers; their errors are logged."""
    if signal.receivers:
        signal.send_robust(sender=sender, **facts)
