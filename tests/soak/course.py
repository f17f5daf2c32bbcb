"""The course of a soak: storm and calm in turn, a canary after each fault, and rest at the end."""

import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator

from django.core.management import call_command
from django.db import close_old_connections

from snappea import schedules
from snappea.queue.database import MEGABYTE
from tests.playground.ledger import note
from tests.site import wait_until

from .faults import step_clock
from .ground import Fault, Ground, Scene
from .history import History
from .reconciliation import Reconciliation, Row
from .supervisor import Sample, Supervisor
from .tasks import TICKS, canary

#: How long storm and calm take together, in seconds, and the share of the storm.
CYCLE, STORM = 600.0, 0.6
#: The longest rest between two faults, in seconds.
REST = 4.0
#: Within how many seconds a canary must start.
SOON = 15.0
#: How long a Foreman must live for its memory to be judged, and how long it takes to warm up, in seconds.
LONG, WARM = 35.0, 15.0
#: How much it may grow after that, in bytes; and for each further minute.
GROWTH, GROWTH_PER_MINUTE = 6 * MEGABYTE, MEGABYTE // 4


class Course:
    """A soak of `seconds`. Foremen end in the `storm` part only; `chance` chooses the faults."""

    def __init__(self, ground: Ground, chance: random.Random, seconds: float, storm: float) -> None:
        self._storm = storm
        self._seconds = seconds
        self._ground, self._site = ground, ground.site
        self._chance = chance
        self._first = list(ground.first)
        self._found: list[str] = []
        self._injected: Counter[str] = Counter()
        self._waits: list[tuple[float, str]] = []  # of each canary, after which fault
        self._notes: list[str] = []

    def run(self) -> list[str]:
        """Return the broken promises."""
        call_command("migrate", verbosity=0)
        call_command("migrate", using="snappea", verbosity=0)
        note("base", time.time() - time.monotonic())
        self._supervisor = Supervisor(self._ground, self._chance)
        self._scene = Scene(self._ground, self._supervisor, self._chance)
        began = time.monotonic()
        cycles = max(1, round(self._seconds / CYCLE))
        survived, deadly = self._ground.survived, self._ground.deadly
        for number in range(cycles):
            length = self._seconds / cycles
            self._spell([*deadly, *survived], began + length * (number + self._storm))
            self._supervisor.wait_until_at_work()
            self._spell(survived, began + length * (number + 1))
        self._come_to_rest()
        self._notes.append(f"it took {time.monotonic() - began - self._seconds:.0f} s to come to rest")
        self._reconcile()
        return self._found

    # faults

    def _spell(self, faults: list[Fault], until: float) -> None:
        rest: list[Fault] = []
        while time.monotonic() < until:
            time.sleep(self._chance.uniform(0, REST))
            rest = rest or self._chance.sample(faults, len(faults))  # each once before any comes again
            fault = self._first.pop(0) if self._first else rest.pop()
            self._injected[fault.__name__] += 1
            fault(self._scene)
            self._send_canary(fault.__name__)

    def _send_canary(self, after: str) -> None:
        """I15: a task that is enqueued after a fault starts soon."""
        key = f"canary:{len(self._waits)}"
        note("try", key, "-", "-")
        began = time.monotonic()
        close_old_connections()
        note("ack", key, canary.delay(key).id)
        place = self._site.directory / key
        try:
            wait_until(place.exists, deadline=4 * SOON)
        except AssertionError:
            self._found.append(f"the canary after {after} did not start within {4 * SOON:g} s")
        wait = time.monotonic() - began
        self._waits.append((wait, after))
        if wait > SOON:
            self._found.append(f"the canary after {after} waited for {wait:.1f} s")
        place.unlink(missing_ok=True)

    # the end

    def _come_to_rest(self) -> None:
        supervisor, directory = self._supervisor, self._site.directory
        supervisor.stop_enqueuers()
        supervisor.wait_until_at_work()
        history = History(self._site.ledger.path)
        highest = history.clock.highest(time.monotonic())
        step_clock(directory, max(0.0, highest - time.time()) + 30)  # everything is due by now
        ticks = self._ticks()
        wait_until(lambda: self._ticks() > ticks + len(TICKS), "ticks to come")
        for name in TICKS:
            assert schedules.pause(f"tests.soak.tasks.{name}")
        try:
            wait_until(self._is_at_rest, f"rest; there are {self._site.counts()}", deadline=120)
            wait_until(lambda: not self._ground.unrest(), self._ground.unrest(), deadline=15)
        except AssertionError as error:
            self._found.append(str(error))
        self._notes.append(f"write-ahead log at rest: {self._ground.log_size() / MEGABYTE:.1f} MB")
        supervisor.stop_foremen()

    def _ticks(self) -> int:
        return sum(line.partition(" ")[2].startswith("start each_") for line in self._ledger_tail())

    def _ledger_tail(self) -> list[str]:
        with self._site.ledger.path.open() as ledger:
            ledger.seek(max(0, self._site.ledger.path.stat().st_size - 100_000))
            return ledger.read().splitlines()

    def _is_at_rest(self) -> bool:
        return not {"ready", "running", "scheduled"} & set(self._site.counts())

    def _reconcile(self) -> None:
        self._found += [*self._supervisor.faults, *self._ground.damage()]
        rows = self._site.sql("SELECT id, args, status, attempts, error, task_name FROM snappea_task")
        history = History(self._site.ledger.path, self._ground.dead_after, self._ground.unwritten)
        rows_left = [Row.of(*row) for row in rows]
        reconciliation = Reconciliation(history, rows_left, time.monotonic(), self._ground)
        self._found += reconciliation.violations()
        self._notes += reconciliation.summary()
        self._notes += self._look_at_memory()

    def _look_at_memory(self) -> Iterator[str]:
        """The memory of a Foreman that lived long is flat once it is warm."""
        lives: dict[int, list[Sample]] = {}
        for sample in self._supervisor.samples:
            lives.setdefault(sample.foreman, []).append(sample)
        for samples in lives.values():
            began, lived = samples[0].moment, samples[-1].moment - samples[0].moment
            if lived < LONG:
                continue
            warm = [sample.memory for sample in samples if sample.moment > began + WARM]
            quarters = [warm[len(warm) * part // 4 :][:8] for part in range(4)] + [warm[-8:]]
            medians = [statistics.median(quarter) for quarter in quarters]
            told = ", ".join(f"{median / MEGABYTE:.1f}" for median in medians)
            yield f"a Foreman that lived for {lived:.0f} s had, once it was warm, {told} MB"
            early, late = medians[0], medians[-1]
            if late - early > GROWTH + lived / 60 * GROWTH_PER_MINUTE:
                self._found.append(f"its memory grew: {early / MEGABYTE:.1f} to {late / MEGABYTE:.1f} MB")

    def report(self) -> list[str]:
        """Return the lines of the summary."""
        waits = sorted(self._waits) or [(0.0, "none")]
        injected = ", ".join(f"{name} {count}" for name, count in sorted(self._injected.items()))
        wal = max((sample.log for sample in self._supervisor.samples), default=0)
        median, (most, after) = waits[len(waits) // 2][0], waits[-1]
        return [
            f"faults: {injected}",
            f"{self._supervisor.foremen} Foremen; canaries waited {median:.2f} s (median), {most:.2f} s "
            f"(most, after {after}); the write-ahead log had {wal / MEGABYTE:.0f} MB at most",
            *self._notes,
        ]
