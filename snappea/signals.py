"""The signals around a task. The sender is the TaskFunction.

Errors of receivers are logged, and do not affect the task.

>>> @receiver(task_failed)
... def count(sender, id, exception, **kwargs): ...

All but `task_enqueued` and `task_interrupted` are sent in the task's thread or process, before the outcome is
written to the row.
"""

from typing import Any

from django.dispatch import Signal

#: A call was written, but perhaps not yet committed. `id`: the primary key of its row.
task_enqueued = Signal()
#: A task is about to run. `id`; `attempt`: 1 the first time.
task_started = Signal()
#: A task returned. `id`; `result`: what it returned.
task_succeeded = Signal()
#: A task raised, and is not retried. `id`; `exception`: what it raised.
task_failed = Signal()
#: A task raised, and will be retried. `id`; `exception`; `delay`: the seconds until the retry.
task_retried = Signal()
#: The Foreman died or stopped while a task ran. `id`; `status`: the new status of its row. The sender is None
#: if no task has the name on the row.
task_interrupted = Signal()


def tell(signal: Signal, sender: object, **facts: Any) -> None:
    """Send a signal if it has receivers; their errors are logged."""
    if signal.receivers:
        signal.send_robust(sender=sender, **facts)
