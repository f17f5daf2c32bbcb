"""Every verb on every state, revoked or not: legal moves work, others change nothing."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from snappea.models import MOVES, Status, Task
from snappea.postgres import foremen
from snappea.queue import groups, operations, store
from snappea.queue import statements as sql
from snappea.queue.database import RawConnection, connect, raw
from snappea.queue.records import Claim, Outcome, Unusable
from snappea.queue.states import DELETED
from tests.site import Site

MOMENT = "2026-01-01 12:00:00"
FENCE = (1, 1, None)
CLAIM = Claim(0, 1, 1, "some.task", "[]", "{}")
UNUSABLE = Unusable(1, {"priority": 0}, "Priority is 'high'.")
FOREMAN = 7


def settle(db: RawConnection, times: int = 1, **outcome: Any) -> None:
    store.settle(db, MOMENT, [Outcome(CLAIM, 0.1, **outcome)] * times)


def tasks() -> Any:
    return Task.objects.all()


#: Each verb by all of its statements, applied to the task with id 1 and claims 1.
#: Operations of users are tried twice: as a whole, and without the check of the states before it.
VERBS: dict[str, list[Callable[[RawConnection], Any]]] = {
    "promote": [lambda db: store.promote(db, MOMENT)],
    "expire or purge": [lambda db: store.expire(db, MOMENT)],
    "claim": [
        lambda db: store.claim(db, MOMENT, 10, {"default": 10}),
        lambda db: store.claim(db, MOMENT, 10, {"default": 10, "mail": 10}),
        lambda db: store.claim_any(db, MOMENT),
        lambda db: db.execute(sql.CLAIM_THESE, (MOMENT, "[1]")),
    ],
    "expire when claimed": [lambda db: store.expire_claimed(db, [CLAIM])],
    "give back": [lambda db: store.give_back(db, [CLAIM])],
    "succeed": [
        lambda db: settle(db),
        lambda db: settle(db, times=store.SEVERAL),
        lambda db: settle(db, result="42"),
        lambda db: db.execute(sql.KEEP_WITHOUT_RESULT, (MOMENT, MOMENT, "", *FENCE)),
    ],
    "retry": [lambda db: settle(db, error="error", reason="reason", retry_after=60.0)],
    "fail": [lambda db: settle(db, error="error", reason="reason")],
    "revoke": [
        lambda db: operations.terminate(tasks()),
        lambda db: db.execute(sql.REVOKE, (1,)),
    ],
    "terminate": [lambda db: settle(db, error="error", reason="reason", is_revoked=True)],
    "interrupt": [lambda db: store.interrupt(db, MOMENT, FENCE, "why")],
    "requeue": [
        lambda db: operations.requeue(tasks()),
        lambda db: operations.requeue(tasks(), countdown=60),
        lambda db: db.execute(sql.REQUEUE, (None, None, 1, 1)),
    ],
    "delete": [lambda db: operations.delete(tasks()), lambda db: db.execute(sql.DELETE, (1, 1))],
    "cancel": [lambda db: operations.cancel(tasks()), lambda db: db.execute(sql.CANCEL, (1,))],
    "hand over": [lambda db: operations.hand_over([1], lambda task: ("key", "[]"))],
    "set aside": [lambda db: store.set_aside(db, MOMENT, UNUSABLE)],
}
#: Where only one Foreman may run the task, on PostgreSQL.
ADDRESSED: dict[str, list[Callable[[RawConnection], Any]]] = {
    "claim": [lambda db: store.claim_addressed(db, MOMENT, 10)],
    "dismiss": [lambda db: foremen.leave(db, FOREMAN)],
}
#: Where the limits of its group hold the task back.
BLOCKED: dict[str, list[Callable[[RawConnection], Any]]] = {
    "discard": [lambda db: groups.discard(db, [1]), lambda db: groups.discard(db, [1], ["default"])],
}


def allowed(verb: str, status: str, is_revoked: bool) -> set[str]:
    """Return the states to which a verb may lead from a state; none if it is illegal."""
    found: set[str] = set()
    for move in (MOVES[name] for name in verb.split(" or ")):
        if status in move.origins:
            found |= set((is_revoked and move.revoked) or move.targets)
    return found


def reached(
    verb: str, ways: Iterable[Callable[[RawConnection], Any]], status: str, is_revoked: bool, **columns: Any
) -> set[str]:
    """Apply each form of a verb to a task in a state; check the results, and return them."""
    found = set()
    legal = allowed(verb, status, is_revoked)
    for way in ways:
        Task.objects.all().delete()
        Task.objects.create(
            pk=1,
            task_name="some.task",
            status=status,
            is_revoked=is_revoked,
            run_after="2026-01-01T11:00Z",
            claims=1,
            attempts=1,
            expires_at="2026-01-01T11:00Z",
            result_ttl=60,
            **columns,
        )
        if "gate" in columns:  # a signal sets it for rows created by hand
            Task.objects.update(gate=columns["gate"])
        before = Task.objects.values().get()
        way(raw(connect()))
        after = Task.objects.values().first()
        if legal:
            found.add(after["status"] if after else DELETED)
            assert found <= legal, (verb, status, is_revoked)
            assert verb != "revoke" or (after and after["is_revoked"])
        elif verb == "set aside":
            assert after and after["status"] == status
        else:
            assert after == before, (verb, status, is_revoked)
    return found


@pytest.mark.on_both
@pytest.mark.parametrize("verb", VERBS)
def test_every_state_by_verb(site: Site, verb: str) -> None:
    """Each declared move happens."""
    for status in Status.values:
        for is_revoked in (False, True):
            found = reached(verb, VERBS[verb], status, is_revoked)
            if verb == "interrupt":
                found |= reached(verb, VERBS[verb], status, is_revoked, acks_late=True)
            assert found == allowed(verb, status, is_revoked)


@pytest.mark.on_postgres
@pytest.mark.parametrize("verb", ADDRESSED)
def test_every_state_by_verb_where_one_foreman_is_named(site: Site, verb: str) -> None:
    for status in Status.values:
        for is_revoked in (False, True):
            foremen.be_known(raw(connect()), FOREMAN)
            found = reached(verb, ADDRESSED[verb], status, is_revoked, gate=3, foreman_id=FOREMAN)
            assert found == allowed(verb, status, is_revoked)


@pytest.mark.on_both
@pytest.mark.parametrize("verb", BLOCKED)
def test_every_state_by_verb_where_a_limit_is_reached(site: Site, verb: str) -> None:
    for status in Status.values:
        for is_revoked in (False, True):
            found = reached(verb, BLOCKED[verb], status, is_revoked, gate=2, lane="full")
            assert found == allowed(verb, status, is_revoked)


def test_every_verb_is_tried() -> None:
    tried = {name for verb in (*VERBS, *ADDRESSED, *BLOCKED) for name in verb.split(" or ")}
    assert tried | {"enqueue"} == set(MOVES)


def test_every_move_is_between_states() -> None:
    states = {*Status.values, DELETED}
    for origins, targets, revoked in MOVES.values():
        assert set(origins) < states and DELETED not in origins
        assert targets and {*targets, *revoked} <= states
