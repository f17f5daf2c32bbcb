"""How to end a task that runs in a thread: by an exception that is raised inside it, and nowhere else."""

import ctypes
import threading

from .errors import TaskRevoked

_raise_in_thread = ctypes.pythonapi.PyThreadState_SetAsyncExc


class Desk:
    """Where a worker thread has a task in hand; made in that thread.

    Python can raise an exception in another thread, at its next step. The lock sees to it that this
    happens only while the task is in hand: not in the worker's own code, not in its next task.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread = ctypes.c_ulong(threading.get_ident())
        self._task: object = None

    def take(self, task: object) -> None:
        """Begin with a task."""
        self._task = task

    def interrupt(self, task: object) -> bool:
        """Raise TaskRevoked in a task, once, and tell whether it was in hand. For other threads.

        A thread that is blocked outside Python (a socket, `time.sleep`) is reached when it returns.
        """
        with self._lock:
            if self._task is not task:
                return False
            self._task = None
            _raise_in_thread(self._thread, ctypes.py_object(TaskRevoked))
            return True

    def put_down(self) -> bool:
        """End with the task, and tell whether it was interrupted, perhaps in this very moment.

        Raises TaskRevoked at most once, if that was still on its way; call it again then.
        """
        with self._lock:
            was_interrupted = self._task is None
            self._task = None
        if was_interrupted:
            _raise_in_thread(self._thread, None)  # take it back, if it was not raised yet
        return was_interrupted
