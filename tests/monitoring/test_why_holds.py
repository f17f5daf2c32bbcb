"""What `why()` says of a waiting task, compared with what the next rounds of a Foreman do."""

import random
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import pytest
from django.utils import timezone

from snappea.foreman import admission
from snappea.foreman.admission import Admission
from snappea.foreman.in_flight import InFlight
from snappea.inspect import Cause, Reason, why
from snappea.models import Limit, Opening, Pause, Task
from snappea.queue import clock, operations, store
from snappea.queue.clock import now
from snappea.queue.database import adapter, connect, file_of, transact
from snappea.queue.logbook import Logbook
from snappea.queue.records import Outcome
from tests.monitoring.test_why import attended
from tests.site import Site

QUEUES = "default", "mail", "slow"
#: The limits of each group.
GROUPS: dict[str, dict[str, Any]] = {
    "pair": {"lane_limit": 2},
    "alone": {"lane_limit": 1},
    "rated": {"lane_interval": 60},
    "bursts": {"lane_interval": 60, "lane_burst": 3},
    "both": {"lane_limit": 2, "lane_interval": 90, "lane_burst": 2},
}
MAY_RUN = Cause.NEXT, Cause.BEHIND, Cause.NEW
#: Half of them for each worker of pytest; fewer on PostgreSQL, where each takes a second.
SCENES = {"sqlite": 20, "postgresql": 8}


class Clock:
    """Stands in for `time`, and stands still."""

    def __init__(self) -> None:
        self.began = time.time_ns()
        self.ahead = 0.0

    def time_ns(self) -> int:
        """Return the wall clock's time."""
        return self.began + round(self.ahead * 1e9)

    def monotonic(self) -> float:
        """Return the monotonic clock's time."""
        return 1000.0 + self.ahead


class Scene:
    """A queue with a random state, and the parts of a Foreman that claim from it."""

    def __init__(self, seed: int, settings: Any, clock: Clock) -> None:
        self.random = random.Random(seed)
        self.clock = clock
        self.groups = None, None, *self.random.sample(list(GROUPS), 2)
        for model in (Task, Pause, Opening, Limit):
            model.objects.all().delete()
        if self.random.random() < 0.5:
            limits: dict[str, dict[str, int]] = {name: {} for name in QUEUES}
            limits["mail"]["max_concurrency"] = self.random.choice((1, 2, 3))
            settings.SNAPPEA = {**settings.SNAPPEA, "QUEUES": limits}
        is_shared = file_of(connect()) is None
        serves_all = self.random.random() < 0.6
        queues = () if serves_all else tuple(self.random.sample(QUEUES, 2))
        strict = bool(queues) and not is_shared and self.random.random() < 0.5
        self._foreman = ExitStack()
        self._foreman.enter_context(attended(queues, strict))
        self.keeper = Admission(queues, strict, adapter(connect(), "foremen") if is_shared else None)
        self.in_flight = InFlight()
        self.in_flight.logbook = Logbook(file_of(connect()), 200)

    def close(self) -> None:
        """End the Foreman."""
        self.in_flight.logbook.close()
        self._foreman.close()

    def enqueue(self, most: int = 12) -> None:
        """Enqueue some tasks with all that may hold a task back."""
        for _ in range(self.random.randint(1, most)):
            group = self.random.choice(self.groups)
            seconds = self.random.choice((*[None] * 6, -5, 30, 100))
            Task.objects.create(
                task_name="some.task",
                queue=self.random.choice(QUEUES),
                priority=self.random.choice((-1, 0, 0, 0, 5)),
                is_async=self.random.random() < 0.2,
                lane=group,
                fair_key=self.random.choice((None, None, "x", "y")),
                status="ready" if seconds is None else "scheduled",
                run_after=None if seconds is None else self.time(seconds),
                **GROUPS.get(group or "", {}),
            )

    def time(self, seconds: float) -> datetime:
        """Return a time by the scene's clock."""
        return clock.as_datetime(clock.later(now(), seconds))

    def decide(self) -> None:
        """Pause and resume queues, and change limits."""
        for queue in QUEUES:
            if not operations.resume(queue) and self.random.random() < 0.07:
                self.pause(queue)
        for group in GROUPS:
            if self.random.random() < 0.1:
                operations.set_limits(
                    "some.task", group, self.random.choice((None, 0, 1, 3, 10**6)), *self.rate()
                )

    def pause(self, queue: str) -> None:
        """Do as `operations.pause()`, which would wait for this Foreman."""
        Pause.objects.create(queue=queue, since=timezone.now())
        recalled = Task.objects.filter(queue=queue, status="ready", gate=0, lane__isnull=False)
        recalled.update(gate=1)

    def rate(self) -> tuple[float | None, int | None]:
        """Return a changed rate."""
        return self.random.choice(((None, None), (0, None), (30, None), (50, 4)))

    def work(self, room: int, loop_room: int = 0) -> set[int]:
        """Do what a round of the Foreman does, and return the ids of the claims."""
        with transact(connect()) as db:
            moment = now(connect())
            peek = store.peek(db)
            rooms = room, loop_room, room + loop_room
            claims, expired, _peek = self.keeper.admit_and_claim(db, moment, *rooms, peek, self.in_flight)
            self.in_flight.open(claims)
        self.keeper.left.clear()
        self.keeper.note_left(expired)
        self.in_flight.take_entered()
        return {claim.id for claim in claims}

    def end(self, ids: Collection[int] | None = None) -> None:
        """Let these running tasks end, or some of them."""
        chosen = [
            (cell, claim)
            for cell, claim in self.in_flight.claims.items()
            if (self.random.random() < 0.3 if ids is None else claim.id in ids)
        ]
        self.in_flight.collect([(cell, Outcome(claim, 0.1)) for cell, claim in chosen])
        with transact(connect()) as db:
            self.keeper.note_left(self.in_flight.write(db, now(connect())))
        self.in_flight.close()

    def settle(self) -> None:
        """Do rounds that claim nothing, until none of them changes a thing."""
        for _ in range(3):
            self.work(0)

    def answers(self) -> dict[int, Reason]:
        """Return why each waiting task waits."""
        waiting = Task.objects.filter(status__in=("ready", "scheduled"))
        return {task.pk: reason for task in waiting if (reason := why(task))}

    def wait(self, until: datetime, more: float) -> None:
        """Let the clock advance to some seconds after a time."""
        self.clock.ahead += (until - self.time(0)).total_seconds() + more


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let the clock of this process stand still."""
    found = Clock()
    monkeypatch.setattr(clock, "time", found)
    monkeypatch.setattr(admission, "time", found)
    return found


@pytest.fixture(params=range(2))
def scenes(request: pytest.FixtureRequest, site: Site, settings: Any, still: Clock) -> Iterator[Any]:
    """Return scenes, one after the other."""
    before = dict(settings.SNAPPEA)

    def made() -> Iterator[Scene]:
        for seed in range(request.param, SCENES[connect().vendor], 2):
            settings.SNAPPEA = dict(before)
            scene = Scene(seed, settings, still)
            try:
                yield scene
            finally:
                scene.close()

    return made()


@pytest.mark.on_both
def test_what_is_told_is_what_happens(scenes: Iterator[Scene]) -> None:
    """In any state, what is claimed was not told to be held back. After a round, it was the next ones."""
    for scene in scenes:
        for _ in range(6):
            scene.enqueue()
            scene.decide()
            scene.end()
            settles = scene.random.random() < 0.6
            if settles:
                scene.settle()
            told = scene.answers()
            rooms = scene.random.choice(((0, 2), (1, 0), (2, 0), (4, 0)))
            kinds = dict(Task.objects.values_list("pk", "is_async"))
            claims = scene.work(*rooms)
            assert all(told[pk].cause in MAY_RUN for pk in claims), (claims, told)
            if settles:
                new = [pk for pk, reason in told.items() if reason.cause is Cause.NEW]
                assert not new, told
                first = {
                    pk
                    for pk, reason in told.items()
                    if reason.cause in MAY_RUN and (reason.before or 0) < rooms[kinds[pk]]
                }
                assert claims == first, (claims, first, told)


def test_it_is_over_at_the_moment_that_was_told_and_not_before(scenes: Iterator[Scene]) -> None:
    tried: set[str] = set()
    for scene in scenes:
        scene.enqueue(20)
        scene.work(6, 2)
        scene.enqueue(20)
        scene.settle()
        earliest: dict[int, datetime] = {}
        for _ in range(8):
            told = scene.answers()
            earliest |= {pk: reason.until for pk, reason in told.items() if reason.until}
            timed = [(reason.until, pk) for pk, reason in told.items() if reason.until and not reason.before]
            if not timed:
                break
            until, pk = min(timed)
            for more in (-0.001, 0.001):
                scene.wait(until, more)
                scene.settle()
                now_told = why(pk)
                assert now_told and (now_told.cause == told[pk].cause) == (more < 0), (told[pk], now_told)
            tried.add(told[pk].cause)
            assert all(earliest.get(one, until) <= scene.time(0) for one in scene.work(2, 1))
            scene.end()
            scene.settle()
    assert tried == {Cause.DUE, Cause.RATE}


@pytest.mark.on_both
def test_it_is_over_when_the_tasks_that_were_told_have_ended(scenes: Iterator[Scene]) -> None:
    tried: set[str] = set()
    for scene in scenes:
        for _ in range(4):
            scene.enqueue(20)
            scene.work(4, 1)
        scene.settle()
        told = {pk: reason for pk, reason in scene.answers().items() if reason.ids}
        scene.work(40, 40)
        running = {claim.id for claim in scene.in_flight.running()}
        sure = {pk for pk, reason in told.items() if {*reason.ids} <= running and reason.before == 0}
        scene.end({pk for reason in told.values() for pk in reason.ids})
        scene.settle()
        after = scene.answers()
        for pk in sure:
            assert after[pk].cause is not Cause.GROUP_FULL, (told[pk], after[pk])
        tried |= {told[pk].cause for pk in sure}
    assert tried == {Cause.GROUP_FULL}
