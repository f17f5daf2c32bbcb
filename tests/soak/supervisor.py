"""Keeps the Foreman and the enqueuers alive, as systemd would, and watches over them."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from snappea.memory import resident
from tests.playground.ledger import note
from tests.site import DEADLINE, Process, Site, wait_until

ENQUEUERS = 3
#: How soon a process that has ended is restarted, in seconds.
RESTART = 0.2
#: Words in the Foreman's log that are about tasks, or about our faults.
EXPECTED = (
    "tests.soak.tasks.",
    "The last Foreman left",
    "database is locked",
    "full",
    "Another Foreman is at work",
    "write-ahead log has grown",
    "The clock was set back",
    "the fork server",
    "is skipped, because catch_up is off",
)


class Sample(NamedTuple):
    """The state of a Foreman at a moment of the monotonic clock; sizes are in bytes."""

    moment: float
    foreman: int
    memory: int
    wal: int


class Supervisor:
    """Restarts processes that have ended, and notes in the ledger when a Foreman starts and ends."""

    def __init__(self, site: Site, chance: random.Random) -> None:
        self._site = site
        self._chance = chance
        self._is_over = threading.Event()
        self._is_short_of_enqueuers = threading.Event()  # they have been told to end
        self._tolerated: Counter[int] = Counter()
        self._allowed: set[int] = set()
        self._started = 0
        self.faults: list[str] = []
        self.samples: list[Sample] = []
        self.foremen = 0
        self.enqueuers: list[Process] = []
        self.foreman = self._start_foreman()
        self._threads = [
            threading.Thread(target=work, daemon=True)
            for work in (self._keep_foreman, self._keep_enqueuers, self._sample)
        ]
        for thread in self._threads:
            thread.start()

    # which processes are alive

    def _start_foreman(self) -> Process:
        self.foremen += 1
        self._allowed = set()
        note("foreman", "starts", self.foremen)
        return self._site.manage("runsnappea", "-v0")

    def _keep_foreman(self) -> None:
        while not self._is_over.is_set():
            code = self.foreman.popen.wait()
            note("foreman", "ended", self.foremen)
            self._look_at_end(code)
            if self._is_over.wait(RESTART):
                return
            self.foreman = self._start_foreman()

    def _look_at_end(self, code: int) -> None:
        if code not in self._allowed and not self._tolerated[code]:
            self.faults.append(f"Foreman {self.foremen} ended with {code}: {self.foreman.output()[-2000:]}")
        for line in self.foreman.output().splitlines():
            is_worth_a_look = " ERROR " in line or " WARNING " in line
            if is_worth_a_look and not any(words in line for words in EXPECTED):
                self.faults.append(f"Foreman {self.foremen} said: {line}")

    def _keep_enqueuers(self) -> None:
        while not self._is_short_of_enqueuers.wait(RESTART):
            for enqueuer in list(self.enqueuers):
                if (code := enqueuer.popen.poll()) is not None:
                    self.enqueuers.remove(enqueuer)
                    if code != -signal.SIGKILL:
                        self.faults.append(f"An enqueuer ended with {code}: {enqueuer.output()[-2000:]}")
            while len(self.enqueuers) < ENQUEUERS:
                self._started += 1
                who, seed = f"e{self._started}", str(self._chance.random())
                arguments = ["-m", "tests.soak.enqueuer", who, seed]
                self.enqueuers.append(Process(self._site, arguments, []))

    # what the faults do to them

    def end_foreman(self, number: int, *codes: int) -> None:
        """Send the Foreman a signal; it may then end with one of these exit codes."""
        self._allowed |= set(codes)
        self.foreman.popen.send_signal(number)

    @contextmanager
    def tolerating(self, *codes: int) -> Iterator[None]:
        """Allow these exit codes during the block, also for the Foreman that runs at its end."""
        self._tolerated.update(codes)
        try:
            yield
        finally:
            self._allowed |= set(codes)
            self._tolerated.subtract(codes)

    def stop_enqueuers(self) -> None:
        """Stop the enqueuers, and check that they end in order."""
        self._is_short_of_enqueuers.set()
        self._threads[1].join()
        (self._site.directory / "enough").touch()
        for enqueuer in self.enqueuers:
            if enqueuer.wait() not in (0, -signal.SIGKILL):
                self.faults.append(f"An enqueuer did not end in order: {enqueuer.output()[-2000:]}")

    def stop_foreman(self) -> None:
        """Stop the Foreman, and check that it ends in order."""
        self._is_over.set()
        self.end_foreman(signal.SIGTERM, 0)
        self._threads[0].join(DEADLINE)
        if self._threads[0].is_alive():
            self.faults.append("The last Foreman did not end.")
        self._threads[2].join()

    # their state

    def _sample(self) -> None:
        while not self._is_over.wait(1.0):
            pid = self.foreman.popen.pid
            self.samples.append(Sample(time.monotonic(), self.foremen, resident(pid), self.wal_size()))

    def wal_size(self) -> int:
        """Return the size of the write-ahead log, in bytes."""
        try:
            return Path(f"{self._site.database}-wal").stat().st_size
        except OSError:
            return 0

    def wait_until_at_work(self) -> None:
        """Wait until a Foreman holds the lock."""
        lock = Path(f"{self._site.database}-lock")
        wait_until(lambda: lock.exists() and f"pid {self.foreman.pid} on" in lock.read_text())
