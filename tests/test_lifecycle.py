"""A task's whole life in random order, against a model in plain Python."""

import dataclasses
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from snappea.foreman.admission import Admission
from snappea.foreman.in_flight import InFlight
from snappea.models import Task
from snappea.queue import operations, recovery, store
from snappea.queue.database import connect, raw, transact
from snappea.queue.logbook import Entry, Note
from snappea.queue.records import Call, Claim, Extras, Outcome
from tests.site import Site

WAITING = ("ready", "scheduled")
START = datetime(2026, 1, 1)
LIMITS = {"lane of one": 1, "lane of two": 2}


@dataclasses.dataclass
class Row:
    """The model's view of a task."""

    priority: int
    queue: str
    acks_late: bool
    keeps_result: bool
    lane: str | None
    key: str | None
    key_while_running: bool
    status: str = "ready"
    due: datetime | None = None
    expires: datetime | None = None
    attempts: int = 0
    claims: int = 0
    interruptions: int = 0
    revoked: bool = False


class Lifecycle(RuleBasedStateMachine):
    """The queue's verbs, as the Foreman and users call them."""

    @initialize()
    def start(self) -> None:
        raw(connect()).execute("DELETE FROM snappea_task")
        self.rows: dict[int, Row] = {}
        self.in_flight: dict[int, Claim] = {}
        self.admission = Admission()
        self.now = START

    @property
    def moment(self) -> str:
        return str(self.now)

    def with_key(self, key: str | None, *statuses: str) -> list[int]:
        """Return the tasks of a unique key that are in one of these states."""
        return [
            number for number, row in self.rows.items() if key and row.key == key and row.status in statuses
        ]

    # any process

    @rule(
        priority=st.sampled_from((0, 0, 5, -5)),
        queue_name=st.sampled_from(("default", "default", "mail")),
        acks_late=st.booleans(),
        keeps_result=st.booleans(),
        lane=st.sampled_from((None, None, *LIMITS)),
        key=st.sampled_from((None, None, "a", "b")),
        key_while_running=st.booleans(),
        wait=st.sampled_from((None, None, 1, 50)),
        expiry=st.sampled_from((None, None, 20)),
    )
    def enqueue(
        self,
        priority: int,
        queue_name: str,
        acks_late: bool,
        keeps_result: bool,
        lane: str | None,
        key: str | None,
        key_while_running: bool,
        wait: int | None,
        expiry: int | None,
    ) -> None:
        due = None if wait is None else self.now + timedelta(seconds=wait)
        expires = None if expiry is None else self.now + timedelta(seconds=expiry)
        key = key and f"{key}{key_while_running}"
        extras = Extras(
            run_after=None if due is None else str(due),
            expires_at=None if expires is None else str(expires),
            result_ttl=10 if keeps_result else None,
            unique_key=key,
            unique_running=key_while_running and key is not None,
            lane=lane,
            lane_limit=LIMITS.get(lane or ""),
        )
        call = Call("x", "[]", "{}", queue_name, priority, acks_late, extras=extras)
        task_id, is_new = store.enqueue(call, str(self.now))
        same = self.with_key(key, *WAITING, *(("running",) if key_while_running else ()))
        assert is_new == (not same), "an identical call is there already, or it is not"
        if not is_new:
            assert task_id in same
            return
        row = Row(priority, queue_name, acks_late, keeps_result, lane, key, key_while_running)
        row.status, row.due, row.expires = ("scheduled" if due else "ready"), due, expires
        self.rows[task_id] = row

    @rule(seconds=st.sampled_from((-3600, -1, 1, 15, 60, 3600)))
    def step_the_clock(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(chosen=st.data())
    def cancel(self, chosen: st.DataObject) -> None:
        task_id = self.any_row(chosen)
        is_waiting = task_id in self.rows and self.rows[task_id].status in WAITING
        assert operations.cancel(Task.objects.filter(pk=task_id)) == is_waiting
        if is_waiting:
            del self.rows[task_id]

    @rule(chosen=st.data())
    def requeue(self, chosen: st.DataObject) -> None:
        task_id = self.any_row(chosen)
        row = self.rows.get(task_id)
        can = row is not None and row.status not in ("ready", "running")
        assert operations.requeue(Task.objects.filter(pk=task_id)) == can
        if can and row:
            self.wait_again(task_id, row, "ready")
            row.attempts = row.interruptions = 0
            row.due = row.expires = None
            row.revoked = False

    @rule(chosen=st.data())
    def terminate(self, chosen: st.DataObject) -> None:
        task_id = self.any_row(chosen)
        row = self.rows.get(task_id)
        runs = row is not None and row.status == "running"
        assert operations.terminate(Task.objects.filter(pk=task_id)) == runs
        if runs and row:
            row.revoked = True
            assert (task_id, row.claims) in [fence[:2] for fence in store.revoked(raw(connect()))]

    def any_row(self, chosen: st.DataObject) -> int:
        return chosen.draw(st.sampled_from([*self.rows, 10**9]))

    # the Foreman

    @rule(room=st.integers(1, 4))
    def round(self, room: int) -> None:
        with transact(connect()) as db:
            store.promote(db, self.moment)
            for row in self.rows.values():
                if row.status == "scheduled" and row.due and row.due <= self.now:
                    row.status = "ready"
            expired = store.expire(db, self.moment)
            self.admission.note_left(expired)
            claims = self.admission.claim(db, self.moment, room, store.peek(db), InFlight())
        self.admission.left.clear()
        gone = {
            number
            for number, row in self.rows.items()
            if row.expires and row.expires <= self.now and row.status in (*WAITING, "successful")
        }
        assert {task.id for task in expired} == gone
        for number in gone:
            del self.rows[number]
        self.check_order(claims, room)
        for claim in claims:
            row = self.rows[claim.id]
            assert row.status == "ready", "only what is ready, due and not expired is claimed"
            row.status = "running"
            row.attempts += 1
            row.claims += 1
            assert (claim.claims, claim.attempts, claim.extras.interruptions, claim.lane) == (
                *(row.claims, row.attempts, row.interruptions, row.lane),
            )
            self.in_flight[claim.id] = claim

    def check_order(self, claims: list[Claim], room: int) -> None:
        """The most urgent first, then the oldest; no worker is idle while a task could run."""
        chosen = [claim.id for claim in claims]
        assert chosen == sorted(chosen, key=self.rank) and len(chosen) <= room
        left = [n for n, row in self.rows.items() if row.status == "ready" and n not in chosen]
        taken = Counter(row.lane for row in self.rows.values() if row.status == "running")
        taken += Counter(self.rows[number].lane for number in chosen)
        free = [n for n in left if self.rows[n].lane is None]
        if len(chosen) < room:
            assert not free, "a worker is free, and so is a task"
            for number in left:
                lane = self.rows[number].lane
                assert taken[lane] == LIMITS[lane or ""], "a lane has room, and a task waits in it"
        elif free and chosen:
            assert self.rank(min(free, key=self.rank)) > self.rank(chosen[-1])

    def rank(self, number: int) -> tuple[int, int]:
        return -self.rows[number].priority, number

    @precondition(lambda self: self.in_flight)
    @rule(chosen=st.data(), how=st.sampled_from(("succeed", "fail", "retry", "revoke", "give back", "late")))
    def end(self, chosen: st.DataObject, how: str) -> None:
        claim = self.in_flight[chosen.draw(st.sampled_from(sorted(self.in_flight)))]
        row = self.rows[claim.id]
        if how == "late":  # of an earlier claim: the fence refuses it
            before = Task.objects.filter(pk=claim.id).values().get()
            late = claim._replace(claims=claim.claims - 1)
            assert store.settle(raw(connect()), self.moment, [Outcome(late, 0.1, "error")]) == 1
            assert Task.objects.filter(pk=claim.id).values().get() == before
            return
        del self.in_flight[claim.id]
        self.admission.note_left([claim])
        with transact(connect()) as db:
            if how == "give back":
                store.give_back(db, [claim])
                row.attempts -= 1
                self.wait_again(claim.id, row, "cancelled" if row.revoked else "ready")
                return
            failed: dict[str, Any] = {"error": "error", "reason": "reason"} if how != "succeed" else {}
            outcome = Outcome(
                claim,
                0.1,
                **failed,
                retry_after=30.0 if how == "retry" else None,
                is_revoked=how == "revoke",
                result="1" if row.keeps_result and how == "succeed" else None,
            )
            assert store.settle(db, self.moment, [outcome]) == 0
        if how == "succeed" and row.keeps_result:
            row.status, row.expires = "successful", self.now + timedelta(seconds=10)
        elif how == "succeed":
            del self.rows[claim.id]
        elif how == "retry" and (row.expires is None or row.expires > self.now + timedelta(seconds=30)):
            row.due = self.now + timedelta(seconds=30)
            self.wait_again(claim.id, row, "scheduled")
        else:
            row.status = "cancelled" if how == "revoke" else "failed"

    @rule(notes=st.lists(st.sampled_from((*Note, Note.BEGUN)), min_size=20, max_size=20))
    def kill(self, notes: list[Note]) -> None:
        """The Foreman dies, and another one starts with an empty Admission."""
        noted = dict(zip(sorted(self.in_flight), notes, strict=False))
        book = {
            Entry.of(*claim.fence): noted[number]
            for number, claim in self.in_flight.items()
            if number in noted
        }
        with transact(connect()) as db:
            recovery.recover(db, self.moment, book)
        for number in sorted(self.in_flight):
            self.recovered(number, noted.get(number, Note.BEGUN))
        self.in_flight.clear()
        self.admission = Admission()

    def recovered(self, number: int, note: Note) -> None:
        row = self.rows[number]
        if note is Note.CLAIMED:
            row.attempts -= 1
            self.wait_again(number, row, "cancelled" if row.revoked else "ready")
        elif note is Note.SUCCEEDED and row.keeps_result:
            row.status, row.expires = "successful", self.now + timedelta(seconds=10)
        elif note is Note.SUCCEEDED:
            del self.rows[number]
        elif note is Note.FAILED:
            row.status = "failed"
        elif note is Note.TO_RETRY:
            row.due = self.now
            self.wait_again(number, row, "scheduled")
        else:
            again = row.acks_late and row.interruptions + 1 < 3
            row.interruptions += 1
            status = "cancelled" if row.revoked else "ready" if again else "interrupted"
            self.wait_again(number, row, status)

    def wait_again(self, number: int, row: Row, status: str) -> None:
        """A task gives up its key if an identical call waits (or runs alone) by now."""
        others = [
            other
            for other in self.with_key(row.key, *WAITING, *(("running",) if row.key_while_running else ()))
            if other != number
        ]
        if others:
            row.key = None
        row.status = status

    # always

    @invariant()
    def the_table_says_what_the_model_says(self) -> None:
        found = {
            number: (status, attempts, claims, interruptions)
            for number, status, attempts, claims, interruptions in Task.objects.values_list(
                "id", "status", "attempts", "claims", "interruptions"
            )
        }
        assert found == {
            number: (row.status, row.attempts, row.claims, row.interruptions)
            for number, row in self.rows.items()
        }

    @invariant()
    def no_lane_holds_more_than_it_may(self) -> None:
        running = Counter(row.lane for row in self.rows.values() if row.status == "running" and row.lane)
        assert all(count <= LIMITS[lane] for lane, count in running.items())


@pytest.mark.long
def test_any_order_of_events(site: Site) -> None:
    run_state_machine_as_test(
        Lifecycle,
        settings=settings(
            max_examples=100,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
