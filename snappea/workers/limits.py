"""How to end a task that runs in a thread: by an exception that is raised inside it, and nowhere else."""

import ctypes
import math
import threading
import time
from collections.abc import Callable

from ..errors import SoftTimeLimitExceeded, TaskRevoked

_raise_in_thread = ctypes.pythonapi.PyThreadState_SetAsyncExc

Ending = type[TaskRevoked] | type[SoftTimeLimitExceeded]


class TaskHandle:
    """Where a worker thread has a task in hand; made in that thread.

    Python can raise an exception in another thread, at its next step. The lock sees to it that this
    happens only while the task is in hand: not in the worker's own code, not in its next task.
    """

    def __init__(self, note_deadline: Callable[[float], object] = id) -> None:
        """Take what is to be told the deadline of a task that has one, by time.monotonic()."""
        self._note_deadline = note_deadline
        self._lock = threading.Lock()
        self._thread = ctypes.c_ulong(threading.get_ident())
        self._task: object = None
        #: With what the task was interrupted.
        self._ending: Ending | None = None
        #: When it is to be interrupted, and when it was, by time.monotonic().
        self.deadline = self.interrupted_at = math.inf
        #: Whether another worker has taken the place of this one.
        self.is_replaced = False

    def take(self, task: object) -> None:
        """Begin with a task."""
        self._ending = None
        self._task = task

    @property
    def task(self) -> object:
        """What is in hand; None if nothing is."""
        return self._task

    def limit(self, seconds: float) -> float:
        """Have the task interrupted after so many seconds from now; return when, by time.monotonic()."""
        self.deadline = time.monotonic() + seconds
        self._note_deadline(self.deadline)
        return self.deadline

    def interrupt(self, task: object) -> bool:
        """Raise TaskRevoked in a task, once, and tell whether it was in hand. For other threads.

        A thread that is blocked outside Python (a socket, `time.sleep`) is reached when it returns.
        """
        with self._lock:
            if self._task is not task or self._ending is TaskRevoked:
                return False
            self._end(TaskRevoked)
            return True

    def enforce_limit(self, here: float) -> bool:
        """Raise SoftTimeLimitExceeded in the task in hand if its time is up; tell whether it was."""
        with self._lock:
            if self._task is None or self.deadline > here:
                return False
            self._end(SoftTimeLimitExceeded)
            return True

    def _end(self, ending: Ending) -> None:
        self._ending, self.deadline = ending, math.inf
        self.interrupted_at = min(self.interrupted_at, time.monotonic())
        _raise_in_thread(self._thread, ctypes.py_object(ending))

    def replace(self) -> object:
        """Give the task in hand up as stuck, and return it; None if it is not in hand any more."""
        with self._lock:
            self.is_replaced = self._task is not None
            self.deadline = self.interrupted_at = math.inf
            return self._task

    def put_down(self) -> Ending | None:
        """End with the task, and tell how it was interrupted, perhaps in this very moment.

        Raises what is still on its way, at most twice; call it again then.
        """
        with self._lock:
            self._task = None
            self.deadline = self.interrupted_at = math.inf
            ending = self._ending
        if ending:
            _raise_in_thread(self._thread, None)  # take it back, if it was not raised yet
        return ending
