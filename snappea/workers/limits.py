"""End a task that runs in a thread, by raising an exception in the task and nowhere else."""

import ctypes
import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from ..errors import SoftTimeLimitExceeded, TaskRevoked

_raise_in_thread = ctypes.pythonapi.PyThreadState_SetAsyncExc

#: Catches every exception of the functions that it calls.
_MAKE_RECORD = logging.LogRecord.__init__.__code__
#: How often to look whether the task has left it, and how long to wait between, in seconds.
_LOOKS, LOOK_AGAIN = 100, 0.0005

Ending = type[TaskRevoked] | type[SoftTimeLimitExceeded]


def is_caught(frame: FrameType | None) -> bool:
    """Return whether an exception that is raised in a frame would be lost in the making of a log record."""
    return frame is not None and _MAKE_RECORD in (frame.f_code, frame.f_back and frame.f_back.f_code)


class Handle:
    """Where a task runs, and how to end it there. This class never ends it."""

    #: Whether start and failure are logged here. If not, the caller gets each exception.
    is_worker = False
    #: When the task is ended, by time.monotonic().
    deadline = math.inf

    def take(self, task: object) -> None:
        """Start a task: from now on it can be ended."""

    def limit(self, seconds: float) -> float:
        """Set the task's soft time limit, and return its deadline."""
        return self.deadline

    def put_down(self) -> Ending | None:
        """Finish the task. Return the exception that was raised in it to end it, if any."""
        return None

    def is_failure(self, raised: BaseException) -> bool:
        """Return whether an exception is a failure of the task. Others are raised to the caller."""
        return True


class TaskHandle(Handle):
    """The task that a worker thread runs. Create it in that thread.

    Python can raise an exception in another thread, at its next bytecode. The lock ensures that this happens
    only while the task runs: not in the worker's own code, and not in its next task.
    """

    is_worker = True

    def __init__(self, note_deadline: Callable[[float], object] | None = None) -> None:
        """`note_deadline` is called with the deadline of each task that has one, by time.monotonic()."""
        self._note_deadline = note_deadline
        self._lock = threading.Lock()
        self._thread = ctypes.c_ulong(threading.get_ident())
        #: The task that runs; None between tasks.
        self.task: object = None
        #: The exception that was raised in the task to end it.
        self._ending: Ending | None = None
        #: When to raise one, and when one was raised, by time.monotonic().
        self.deadline = self.raised_at = math.inf
        #: Whether another worker has replaced this one.
        self.is_replaced = False

    def take(self, task: object) -> None:
        """Start a task."""
        self._ending = None
        self.task = task

    def limit(self, seconds: float) -> float:
        """Raise SoftTimeLimitExceeded in the task after so many seconds. Return the deadline."""
        self.deadline = time.monotonic() + seconds
        if self._note_deadline:
            self._note_deadline(self.deadline)
        return self.deadline

    def revoke(self, task: object) -> bool:
        """Raise TaskRevoked in a task, once, and return whether it runs here. Called by other threads.

        In a thread that is blocked outside Python (a socket, `time.sleep`), it is raised when that returns.
        """
        with self._lock:
            if self.task is not task or self._ending is TaskRevoked:
                return False
            self._raise_in_task(TaskRevoked)
            return True

    def enforce_limit(self, here: float) -> None:
        """Raise SoftTimeLimitExceeded in the task if its time is up. Called by other threads."""
        with self._lock:
            if self.task is not None and self.deadline <= here:
                self._raise_in_task(SoftTimeLimitExceeded)

    def _raise_in_task(self, ending: Ending) -> None:
        self._ending, self.deadline = ending, math.inf
        self.raised_at = min(self.raised_at, time.monotonic())
        thread, wanted, looks = self._thread, ctypes.py_object(ending), _LOOKS
        # last, because the task may go on between a look and the exception
        while looks and is_caught(sys._current_frames().get(thread.value)):
            time.sleep(LOOK_AGAIN)
            looks -= 1
        _raise_in_thread(thread, wanted)

    def replace(self) -> object:
        """Give up the task as stuck, and return it; None if it has just ended."""
        with self._lock:
            self.is_replaced = self.task is not None
            self.deadline = self.raised_at = math.inf
            return self.task

    def put_down(self) -> Ending | None:
        """Finish the task. Return the exception that was raised in it, perhaps at this very moment.

        A pending exception is raised here, at most twice; then call this again.
        """
        with self._lock:
            self.task = None
            self.deadline = self.raised_at = math.inf
            ending = self._ending
            if ending:
                self._use_up(ending)
        return ending

    def _use_up(self, ending: Ending) -> None:
        """Let no exception come later.

        To cancel a pending one is not enough: until Python raises another one, all its threads are slower,
        and in 3.11 a function that is traced never ends.
        """
        try:
            _raise_in_thread(self._thread, ctypes.py_object(ending))  # replaces one that is pending
            _raise_in_thread(self._thread, None)
        except ending:
            pass
