"""The course of a soak: storm and calm in turn, a canary after each fault, and rest at the end."""

import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from django.core.management import call_command

from snappea import schedules
from snappea.foreman.sqlite_host import LARGE_WAL
from snappea.queue.database import MEGABYTE
from tests.playground.ledger import note
from tests.site import Site, wait_until

from .faults import DEADLY, NEED_SMALL_DISK, SURVIVED, Fault, Scene, step_clock
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

    def __init__(
        self, site: Site, chance: random.Random, seconds: float, disk: Path | None, storm: float
    ) -> None:
        self._storm = storm
        self._seconds = seconds
        self._site = site
        self._chance = chance
        self._disk = disk
        self._found: list[str] = []
        self._injected: Counter[str] = Counter()
        self._waits: list[float] = []
        self._notes: list[str] = []

    def run(self) -> list[str]:
        """Return the broken promises."""
        call_command("migrate", verbosity=0)
        call_command("migrate", using="snappea", verbosity=0)
        note("base", time.time() - time.monotonic())
        self._supervisor = Supervisor(self._site, self._chance)
        self._scene = Scene(self._site, self._supervisor, self._chance, self._disk)
        began = time.monotonic()
        cycles = max(1, round(self._seconds / CYCLE))
        for number in range(cycles):
            length = self._seconds / cycles
            self._spell([*DEADLY, *SURVIVED], began + length * (number + self._storm))
            self._supervisor.wait_until_at_work()
            self._spell(SURVIVED, began + length * (number + 1))
        self._come_to_rest()
        self._notes.append(f"it took {time.monotonic() - began - self._seconds:.0f} s to come to rest")
        self._reconcile()
        return self._found

    # faults

    def _spell(self, faults: list[Fault], until: float) -> None:
        possible = [fault for fault in faults if self._disk or fault not in NEED_SMALL_DISK]
        while time.monotonic() < until:
            time.sleep(self._chance.uniform(0, REST))
            fault = self._chance.choice(possible)
            self._injected[fault.__name__] += 1
            fault(self._scene)
            self._send_canary(fault.__name__)

    def _send_canary(self, after: str) -> None:
        """I15: a task that is enqueued after a fault starts soon."""
        key = f"canary:{len(self._waits)}"
        note("try", key, "-", "-")
        began = time.monotonic()
        note("ack", key, canary.delay(key).id)
        place = self._site.directory / key
        try:
            wait_until(place.exists, deadline=4 * SOON)
        except AssertionError:
            self._found.append(f"the canary after {after} did not start within {4 * SOON:g} s")
        self._waits.append(time.monotonic() - began)
        if self._waits[-1] > SOON:
            self._found.append(f"the canary after {after} waited for {self._waits[-1]:.1f} s")
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
            wait_until(lambda: supervisor.wal_size() <= LARGE_WAL, "a small write-ahead log", deadline=15)
        except AssertionError as error:
            self._found.append(str(error))
        self._notes.append(f"write-ahead log at rest: {supervisor.wal_size() / MEGABYTE:.1f} MB")
        supervisor.stop_foreman()

    def _ticks(self) -> int:
        return sum(line.partition(" ")[2].startswith("start each_") for line in self._ledger_tail())

    def _ledger_tail(self) -> list[str]:
        with self._site.ledger.path.open() as ledger:
            ledger.seek(max(0, self._site.ledger.path.stat().st_size - 100_000))
            return ledger.read().splitlines()

    def _is_at_rest(self) -> bool:
        return not {"ready", "running", "scheduled"} & set(self._site.counts())

    def _reconcile(self) -> None:
        self._found += self._supervisor.faults
        if (integrity := self._site.sql("PRAGMA integrity_check")) != [("ok",)]:
            self._found.append(f"integrity_check: {integrity}")
        rows = self._site.sql("SELECT id, args, status, attempts, error, task_name FROM snappea_task")
        history = History(self._site.ledger.path)
        workers = self._site.settings["NUM_WORKERS"]
        reconciliation = Reconciliation(history, [Row.of(*row) for row in rows], time.monotonic(), workers)
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
        waits = sorted(self._waits) or [0.0]
        injected = ", ".join(f"{name} {count}" for name, count in sorted(self._injected.items()))
        wal = max((sample.wal for sample in self._supervisor.samples), default=0)
        return [
            f"faults: {injected}",
            f"{self._supervisor.foremen} Foremen; canaries waited {statistics.median(waits):.2f} s "
            f"(median), {waits[-1]:.2f} s (most); the write-ahead log had {wal / MEGABYTE:.0f} MB at most",
            *self._notes,
        ]
