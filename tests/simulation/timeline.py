"""The clock, the threads that share it, and what is due."""

import heapq
import itertools
import os
import random
import sys
import threading
import time as real_time
import traceback
from collections.abc import Callable
from typing import Any, TypeAlias

#: The time at which a life begins, by the wall clock, in seconds.
EPOCH = 1_900_000_000
#: Spans of numbers: how often in 100, the least and the largest.
Spans: TypeAlias = tuple[tuple[int, float, float], ...]
#: How long a statement takes, in seconds.
PAUSES: Spans = ((80, 0.00001, 0.0001), (12, 0.0001, 0.002), (6, 0.002, 0.05), (2, 0.05, 1.5))


class Killed(BaseException):
    """The process was killed."""


class Process:
    """A thread that stands for a process: its own random numbers decide how long its statements take."""

    def __init__(self, name: str, seed: str) -> None:
        self.name = name
        self.random = random.Random(f"{seed}/{name}")
        self.lock = threading.Lock()
        self.lock.acquire()
        #: The number of what wakes it; anything else on the timeline that would is outdated.
        self.waits_for = 0
        self.is_killed = self.is_ended = False

    def next_pause(self) -> float:
        """Return how long the next statement takes."""
        return drawn(self.random, PAUSES)


def drawn(chance: random.Random, spans: Spans) -> float:
    """Return a number from one of several spans."""
    dice = chance.random() * 100
    for share, least, most in spans:
        dice -= share
        if dice < 0:
            return least + (most - least) * chance.random()
    raise ValueError("The shares make no 100.")


class Timeline:
    """What is due, by time. The thread that gives way runs it, until a thread is due."""

    def __init__(self, main: Process) -> None:
        self.now = 1000.0
        self.main = self.current = main
        self._due: list[tuple[float, int, Process | Callable[[], None]]] = []
        self._numbers = itertools.count(1)
        self._started: list[Process] = []
        #: Added to the wall clock.
        self.ahead = 0.0

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Call a function so much later, between the steps of other processes."""
        heapq.heappush(self._due, (self.now + seconds, next(self._numbers), act))

    def pause(self, seconds: float) -> None:
        """Let the current process sleep. Raises Killed if it was killed meanwhile."""
        me = self.current
        if me.is_killed:
            raise Killed
        if not self._due or self._due[0][0] > self.now + seconds:
            self.now += seconds
            return
        self._wake(me, seconds)
        self._run(me)
        if me.is_killed:
            raise Killed

    def start(self, process: Process, act: Callable[[], None]) -> None:
        """Run a function as a process, from now on."""

        def run() -> None:
            process.lock.acquire()
            try:
                act()
            except Killed:
                pass
            except Exception:
                traceback.print_exc()
                os._exit(2)
            process.is_ended = True
            self._run(None)

        self._started.append(process)
        threading.Thread(target=run, daemon=True).start()
        self._wake(process, 0.0)

    def wake(self, process: Process, seconds: float = 0.0) -> None:
        """End the sleep of a process."""
        self._wake(process, seconds)

    def kill(self, process: Process) -> None:
        """Kill a process where it is."""
        process.is_killed = True
        self.wake(process)

    def finish(self) -> None:
        """Kill all processes but the main one, and wait for their ends."""
        for process in self._started:
            if not process.is_ended:
                self.kill(process)
        while not all(process.is_ended for process in self._started):
            self._wake(self.main, 0.001)
            self._run(self.main)

    def _wake(self, process: Process, seconds: float) -> None:
        process.waits_for = number = next(self._numbers)
        heapq.heappush(self._due, (self.now + seconds, number, process))

    def _run(self, me: Process | None) -> None:
        """Go on with what is due, until it is this process; without one, until it is any."""
        while True:
            at, number, due = heapq.heappop(self._due)
            if isinstance(due, Process):
                if number != due.waits_for:
                    continue
                self.now = max(self.now, at)
                if due is not me:
                    self.current = due
                    due.lock.release()
                    if me:
                        me.lock.acquire()
                return
            self.now = max(self.now, at)
            try:
                due()
            except Exception:
                traceback.print_exc()
                os._exit(2)  # the simulation itself is broken, and no thread would go on


class Clock:
    """Stands in for the module `time` in all of Snappea's modules."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    def monotonic(self) -> float:
        return self._timeline.now

    def time_ns(self) -> int:
        line = self._timeline
        return int((EPOCH + line.now + line.ahead) * 1_000_000) * 1000

    def time(self) -> float:
        return self.time_ns() / 1e9

    def sleep(self, seconds: float) -> None:
        self._timeline.pause(seconds)

    def clock_gettime(self, _clock: int) -> float:
        return self._timeline.now

    def __getattr__(self, name: str) -> Any:
        return getattr(real_time, name)


def install(clock: Clock) -> None:
    """Let all of Snappea go by a clock."""
    for name, module in list(sys.modules.items()):
        if name.startswith("snappea.") and isinstance(vars(module).get("time"), (type(real_time), Clock)):
            vars(module)["time"] = clock
