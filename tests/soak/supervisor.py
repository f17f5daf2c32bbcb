"""Keeps the Foremen and the enqueuers alive, as systemd would, and watches over them."""

import itertools
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from snappea.memory import resident
from tests.playground.ledger import note
from tests.site import DEADLINE, Process, wait_until

from .ground import Ground
from .tasks import FOREMAN

ENQUEUERS = 3
#: How soon a process that has ended is restarted, in seconds.
RESTART = 0.2
#: Words in the Foreman's log that are about tasks, or about our faults.
EXPECTED = (
    "tests.soak.tasks.",
    "The last Foreman left",
    "The clock was set back",
    "the fork server",
    "is skipped, because catch_up is off",
)
#: What a Foreman says that was taken for dead.
BURIED = "another Foreman considers this one dead"


class Sample(NamedTuple):
    """The state of a Foreman at a moment of the monotonic clock; sizes are in bytes."""

    moment: float
    foreman: int
    memory: int
    log: int


class Post:
    """A place where a Foreman is kept alive: its present one has this `process` and `number`."""

    def __init__(self, supervisor: "Supervisor", index: int) -> None:
        self._supervisor = supervisor
        self._index = index
        self.allowed: set[int] = set()
        self._start()

    def _start(self) -> None:
        self.allowed = set()
        self.number, self.process = self._supervisor.start_foreman(self._index)

    def keep(self) -> None:
        """Restart the Foreman whenever it has ended, until the soak is over."""
        while not self._supervisor.is_over.is_set():
            code = self.process.popen.wait()
            note("foreman", "ended", self.number)
            self._supervisor.look_at_end(self, code)
            if self._supervisor.is_over.wait(RESTART):
                return
            self._start()

    def end(self, number: int, *codes: int) -> None:
        """Send the Foreman a signal; it may then end with one of these exit codes."""
        self.allowed |= set(codes)
        self.process.popen.send_signal(number)

    def terminate(self) -> None:
        """Ask the Foreman to stop."""
        self.end(signal.SIGTERM, 0, -signal.SIGTERM)  # it may not have installed its handlers yet


class Supervisor:
    """Restarts processes that have ended, and notes in the ledger when a Foreman starts and ends."""

    def __init__(self, ground: Ground, chance: random.Random) -> None:
        self._ground, self._site = ground, ground.site
        self._chance = chance
        self.is_over = threading.Event()
        self._is_short_of_enqueuers = threading.Event()  # they have been told to end
        self._starting = threading.Lock()  # the site numbers its processes
        self._tolerated: Counter[int] = Counter()
        self._started = 0
        self._numbers = itertools.count(1)
        self.faults: list[str] = []
        self.samples: list[Sample] = []
        self.foremen = 0
        self.enqueuers: list[Process] = []
        self.posts = [Post(self, index) for index in range(ground.foremen)]
        self._keepers = [threading.Thread(target=post.keep, daemon=True) for post in self.posts]
        self._enqueuing = threading.Thread(target=self._keep_enqueuers, daemon=True)
        self._sampling = threading.Thread(target=self._sample, daemon=True)
        for thread in (*self._keepers, self._enqueuing, self._sampling):
            thread.start()

    # which processes are alive

    def start_foreman(self, index: int) -> tuple[int, Process]:
        """Start a Foreman for a post. Return its number and its process."""
        with self._starting:
            self.foremen = number = next(self._numbers)
            variables = {FOREMAN: str(number), **self._ground.variables(index)}
            note("foreman", "starts", number)
            arguments = ["-m", "django", "runsnappea", "-v0"]
            return number, Process(self._site, arguments, [], variables=variables)

    def look_at_end(self, post: Post, code: int) -> None:
        """Check how a Foreman ended, and what it said."""
        output, expected = post.process.output(), (*EXPECTED, *self._ground.expected)
        if code not in post.allowed and not self._tolerated[code]:
            self.faults.append(f"Foreman {post.number} ended with {code}: {output[-2000:]}")
        for line in output.splitlines():
            is_worth_a_look = " ERROR " in line or " WARNING " in line
            if BURIED in line:
                note("buried", post.number)
            elif is_worth_a_look and not any(words in line for words in expected):
                self.faults.append(f"Foreman {post.number} said: {line}")

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
                with self._starting:
                    self.enqueuers.append(Process(self._site, arguments, []))

    # what the faults do to them

    @contextmanager
    def tolerating(self, *codes: int) -> Iterator[None]:
        """Allow these exit codes during the block, also for the Foremen that run at its end."""
        self._tolerated.update(codes)
        try:
            yield
        finally:
            for post in self.posts:
                post.allowed |= set(codes)
            self._tolerated.subtract(codes)

    def stop_enqueuers(self) -> None:
        """Stop the enqueuers, and check that they end in order."""
        self._is_short_of_enqueuers.set()
        self._enqueuing.join()
        (self._site.directory / "enough").touch()
        for enqueuer in self.enqueuers:
            if enqueuer.wait() not in (0, -signal.SIGKILL):
                self.faults.append(f"An enqueuer did not end in order: {enqueuer.output()[-2000:]}")

    def stop_foremen(self) -> None:
        """Stop the Foremen, and check that they end in order."""
        self.is_over.set()
        for post in self.posts:
            post.end(signal.SIGTERM, 0)
        for keeper in self._keepers:
            keeper.join(DEADLINE)
        if any(keeper.is_alive() for keeper in self._keepers):
            self.faults.append("The last Foremen did not end.")
        self._sampling.join()

    # their state

    def _sample(self) -> None:
        while not self.is_over.wait(1.0):
            size = self._ground.log_size()
            for post in self.posts:
                number, pid = post.number, post.process.popen.pid
                self.samples.append(Sample(time.monotonic(), number, resident(pid), size))

    def wait_until_at_work(self) -> None:
        """Wait until all Foremen work."""
        wait_until(lambda: all(self._ground.is_at_work(post.process) for post in self.posts))
