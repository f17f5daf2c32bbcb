"""The signals around a task. The sender is the TaskFunction.

A receiver that raises is logged and harms nothing.

>>> @receiver(task_failed)
... def count(sender, id, exception, **kwargs): ...

All but `task_enqueued` and `task_interrupted` are sent in the worker's thread, around the task and
before the row says what became of it.
"""

from typing import Any

from django.dispatch import Signal

#: A call was written (perhaps not yet committed). `id`: of its row.
task_enqueued = Signal()
#: A task is about to run. `id`, `attempt`: 1 the first time.
task_started = Signal()
#: It returned. `id`, `result`.
task_succeeded = Signal()
#: It raised, and is not tried again. `id`, `exception`.
task_failed = Signal()
#: It raised, and is tried again. `id`, `exception`, `delay` in seconds.
task_retried = Signal()
#: The Foreman died, or was stopped, while it ran. `id`, `status`: of the row now. The sender is None
#: where no task has the row's name.
task_interrupted = Signal()


def tell(signal: Signal, sender: object, **facts: Any) -> None:
    """Send a signal, if it has receivers; what a receiver raises is logged."""
    if signal.receivers:
        signal.send_robust(sender=sender, **facts)
