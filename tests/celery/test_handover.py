"""Handing over waiting tasks to Celery: each runs once, no matter what is killed when."""

import json
import signal
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections
from django.utils import timezone

from snappea import AsyncResult
from snappea.celery import handover
from snappea.celery.engine import send_handed_over
from snappea.celery.messages import HEADER, message_of
from snappea.errors import CannotStart, UnknownTask
from snappea.models import Batch, Handover, Task
from snappea.queue import operations, store
from snappea.tasks.function import registry
from tests.celerysite import CelerySite
from tests.site import DEADLINE, wait_until

pytestmark = pytest.mark.long

#: Hands everything over, and is killed where the first argument says, at the so many'th message.
KILLED = """
import os, signal
from snappea.celery import handover
from snappea.celery.engine import send_handed_over
from snappea.models import Task
where, number = sys.argv[1], int(sys.argv[2])
sent = 0
def send(item, ticket):
    global sent
    if where == "before" and sent == number:
        os.kill(os.getpid(), signal.SIGKILL)
    send_handed_over(item, ticket)
    sent += 1
    if where == "after" and sent == number:
        os.kill(os.getpid(), signal.SIGKILL)
handover.hand_over(Task.objects.all(), send)
"""


@pytest.fixture
def site(celery_site: CelerySite) -> Iterator[CelerySite]:
    """Return the site with empty tables."""
    yield celery_site
    Task.objects.all().delete()
    Handover.objects.all().delete()


def wait(task: Any, *args: Any, **options: Any) -> Task:
    """Write a call to the table, as our own queue would have."""
    call = task.call(args, {})
    extras = call.extras._replace(**options.pop("extras", {})) if call.extras else None
    task_id, _is_new = store.enqueue(call._replace(**{"extras": extras, **options}))
    return Task.objects.get(pk=task_id)


def run(*flags: str) -> str:
    from io import StringIO

    said = StringIO()
    call_command("snappea", "handover", *flags, stdout=said)
    return said.getvalue()


def settle(site: CelerySite, *ended: str) -> None:
    """Wait until these tasks have ended and Celery's worker is idle: it takes messages in order."""
    for _ in range(3):  # there are two processes
        assert site.tasks.add.delay(1, 2).get(timeout=DEADLINE) == 3
    wait_until(lambda: not handover.outstanding(), f"{list(Handover.objects.values())}")
    wait_until(lambda: set(ended) <= site.ledger.keys("end").keys())  # what was taken may still run


def test_what_waits_is_run_by_celery(site: CelerySite) -> None:
    for number in range(5):
        wait(site.tasks.record, f"plain-{number}")
    late = wait(site.tasks.record_late, "late")
    assert "Would hand over 6." in run("--dry-run") and Task.objects.count() == 6
    assert run().startswith("Handed over 6.\n")
    settle(site, "late", *(f"plain-{number}" for number in range(5)))
    ends = site.ledger.keys("end")
    assert [ends[f"plain-{number}"] for number in range(5)] == [1] * 5 and ends["late"] == 1
    assert Task.objects.count() == 0 and late.pk
    assert run() == "Handed over 0.\n"


def test_all_that_a_row_says_goes_over(site: CelerySite) -> None:
    due, end = timezone.now() + timedelta(hours=1), timezone.now() + timedelta(hours=2)
    row = wait(site.tasks.describe, 0, priority=-100, queue="later")
    Task.objects.filter(pk=row.pk).update(
        status="scheduled", run_after=due, expires_at=end, attempts=2, result_ttl=5, parent_id=7
    )
    sent: list[Any] = []
    handover.hand_over(Task.objects.all(), lambda item, ticket: sent.append((item, ticket)))
    ((item, ticket),) = sent
    assert (item.call.queue, item.call.priority, item.retries, ticket.retries) == ("later", -100, 2, 2)
    assert item.enqueued_at == str(row.enqueued_at.replace(tzinfo=None))
    options = message_of(item.call, item.enqueued_at, site.app, ticket)
    assert (options["eta"], options["expires"]) == (due, end)
    assert (options["queue"], options["priority"], options["ignore_result"]) == ("later", 9, False)
    told = options["headers"][HEADER]
    assert (told["parent_id"], told["result_ttl"], told["enqueued_at"]) == (7, 5, item.enqueued_at)
    assert json.loads(json.dumps(told))["ticket"] == list(ticket)


def test_it_goes_on_with_the_attempts_there_were(site: CelerySite) -> None:
    row = wait(site.tasks.fail_until, "attempts", 99)
    Task.objects.filter(pk=row.pk).update(attempts=2)
    run()
    wait_until(lambda: ["start", "attempts", "3"] in site.ledger.lines())
    settle(site)
    assert site.ledger.keys("start")["attempts"] == 1  # max_retries=2


@pytest.mark.parametrize(("where", "number"), [("before", 0), ("after", 1), ("before", 3), ("after", 4)])
def test_killed_in_the_middle_it_goes_on_and_each_task_runs_once(
    site: CelerySite, where: str, number: int
) -> None:
    log, refused = site.processes[0], "was delivered twice. It runs only once"
    before = log.output().count(refused)
    keys = [f"{where}-{number}-{each}" for each in range(4)]
    for key in keys:
        wait(site.tasks.record if key[-1] in "01" else site.tasks.record_late, key)
    log.send(signal.SIGSTOP)  # the worker takes none of them before they are sent twice
    try:
        process = site.program(KILLED, where, str(number))
        assert process.wait() == -9
        assert (Task.objects.count(), Handover.objects.filter(sent_at=None).count()) == (0, 4)
        run()
        assert not site.ledger.keys("end").keys() & set(keys)
    finally:
        log.send(signal.SIGCONT)
    wait_until(lambda: sum(site.ledger.keys("end")[key] for key in keys) >= 4)
    wait_until(lambda: log.output().count(refused) >= before + number, log.output())
    settle(site)
    ends = site.ledger.keys("end")
    assert [ends[key] for key in keys] == [1] * 4


def test_what_the_broker_has_lost_is_sent_again(site: CelerySite) -> None:
    wait(site.tasks.record, "lost")
    handover.hand_over(Task.objects.all(), lambda item, ticket: None)
    assert "Handed over 0.\n1 handed-over tasks wait for a Celery worker" in run()
    assert run("--again").startswith("Handed over 1.\n")
    settle(site, "lost")
    run("--again")
    assert site.ledger.keys("end")["lost"] == 1


def test_a_ticket_is_good_for_one_message(site: CelerySite) -> None:
    wait(site.tasks.record, "x")
    tickets: list[handover.Ticket] = []
    handover.hand_over(Task.objects.all(), lambda item, ticket: tickets.append(ticket))
    handover.hand_over(Task.objects.all(), lambda item, ticket: tickets.append(ticket), again=True)
    first, second = tickets
    assert first.key == second.key and first.message != second.message
    assert handover.take(first, may_repeat=True) and handover.take(first, may_repeat=True)
    assert not handover.take(second, may_repeat=True)
    handover.finish(first)
    assert not handover.take(first, may_repeat=True) and not handover.take(second, may_repeat=False)


def test_a_worker_that_cannot_reach_the_database_puts_the_message_back(
    site: CelerySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait(site.tasks.record, "x")
    tickets: list[handover.Ticket] = []
    handover.hand_over(Task.objects.all(), lambda item, ticket: tickets.append(ticket))
    with pytest.raises(handover.Unreachable, match="is another database"):
        handover.take(tickets[0]._replace(database=1), may_repeat=False)
    elsewhere = site.directory / "elsewhere.sqlite3"
    monkeypatch.setitem(connections["snappea"].settings_dict, "NAME", str(elsewhere))
    with pytest.raises(handover.Unreachable, match=r"elsewhere.* does not exist"):
        handover.take(tickets[0], may_repeat=False)
    assert not elsewhere.exists()


def test_the_call_of_a_task_that_a_worker_does_not_know_is_not_taken(
    site: CelerySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait(site.tasks.record, "x")
    tickets: list[handover.Ticket] = []
    handover.hand_over(Task.objects.all(), lambda item, ticket: tickets.append(ticket))
    celerys = site.app.tasks[site.tasks.record.name]
    monkeypatch.delitem(registry, site.tasks.record.name)
    celerys.push_request(headers={HEADER: {"ticket": list(tickets[0])}}, called_directly=False)
    try:
        with pytest.raises(UnknownTask):
            celerys.run("x")
    finally:
        celerys.pop_request()
    assert handover.outstanding() == 1


def test_a_message_that_was_put_back_is_run_once_the_database_is_there(site: CelerySite) -> None:
    wait(site.tasks.record, "put-back")
    site.directory.joinpath("away").mkdir()
    wrong: list[handover.Ticket] = []

    def send(item: handover.Item, ticket: handover.Ticket) -> None:
        wrong.append(ticket)
        send_handed_over(item, ticket._replace(database=ticket.database + 1))

    handover.hand_over(Task.objects.all(), send)
    site.processes[0].wait_for_output(rf"{wrong[0].key}\] is put back: .* is another database")
    assert site.ledger.keys("end")["put-back"] == 0
    run("--again")
    settle(site, "put-back")
    assert site.ledger.keys("end")["put-back"] == 1
    site.app.control.revoke(wrong[0].key)


def test_what_is_not_to_go_stays_and_is_named(site: CelerySite) -> None:
    wait(site.tasks.record, "paused", queue="halted")
    Task.objects.create(task_name="shop.tasks.gone")
    Task.objects.create(task_name=site.tasks.record.name, args="[")
    Task.objects.create(task_name=site.tasks.record.name, args=["x"], backend="default")
    Task.objects.create(task_name=site.tasks.record.name, args=["x"], steps='{"charge":1}')
    Task.objects.create(task_name=site.tasks.record.name, args=["x"], batch_id=Batch.objects.create().pk)
    for status in ("failed", "interrupted", "cancelled", "successful"):
        Task.objects.create(task_name=site.tasks.record.name, args=["kept"], status=status)
    operations.pause("halted")
    try:
        said = run()
    finally:
        operations.resume("halted")
    assert said == (
        "Handed over 0.\n"
        "Left 1 in the queue halted, which is paused.\n"
        "Left 1 of batches.\n"
        "Left 1 of django.tasks.\n"
        "Left 1 of unknown tasks.\n"
        "Left 1 that have finished steps.\n"
        "Left 1 with arguments that cannot be read.\n"
    )
    assert Task.objects.count() == 10


def test_one_queue_or_one_task_alone(site: CelerySite) -> None:
    wait(site.tasks.record, "this", queue="this")
    wait(site.tasks.record_late, "that")
    assert "Would hand over 1." in run("--dry-run", "--queue", "this")
    assert "Would hand over 1." in run("--dry-run", "--task", site.tasks.record_late.name)
    assert "Would hand over 0." in run("--dry-run", "--older-than", "1h")


def test_what_a_dead_foreman_left_is_settled_first(site: CelerySite) -> None:
    running = Task.objects.create(task_name=site.tasks.record.name, args=["r"], status="running", claims=1)
    late = Task.objects.create(
        task_name=site.tasks.record_late.name, args=["again"], status="running", claims=1, acks_late=True
    )
    fields = {"task_name": late.task_name, "status": "running", "claims": 1, "acks_late": True}
    durable = Task.objects.create(args=["durable"], steps='{"charge":1}', **fields)
    assert run().startswith("Handed over 1.\nLeft 1 that have finished steps.\n")
    settle(site, "again")
    durable.refresh_from_db()
    assert (durable.status, durable.steps) == ("ready", '{"charge":1}'), "the Foreman continues it"
    running.refresh_from_db()
    assert running.status == "interrupted" and not Task.objects.filter(pk=late.pk).exists()
    assert site.ledger.keys("end")["again"] == 1


def test_what_is_revoked_on_its_way_is_not_run(site: CelerySite) -> None:
    wait(site.tasks.record, "revoked")
    tickets: list[handover.Ticket] = []
    handover.hand_over(Task.objects.all(), lambda item, ticket: tickets.append(ticket))
    AsyncResult(tickets[0].key).revoke()
    assert handover.outstanding() == 0 and not handover.take(tickets[0], may_repeat=False)


def test_what_has_expired_on_its_way_is_forgotten(site: CelerySite) -> None:
    row = wait(site.tasks.record, "expired")
    Task.objects.filter(pk=row.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    handover.hand_over(Task.objects.all(), lambda item, ticket: None)
    assert handover.outstanding() == 1
    assert run() == "Handed over 0.\n" and handover.outstanding() == 0


def test_not_while_a_foreman_is_at_work(site: CelerySite) -> None:
    wait(site.tasks.record, "x", queue="nobody")
    before = dict(site.variables)
    site.variables["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    site.settings |= {"HOOK_ADD_TASK_KWARGS": None, "HOOK_RUN_TASK_CONTEXT": None}
    try:
        foreman = site.foreman("--queues", "somebody")
        with pytest.raises(
            CommandError, match=rf"A Foreman is running \(pid {foreman.pid} on .*\)\. Stop it first"
        ):
            run()
        foreman.stop()
        assert "Handed over 1." in run()
    finally:
        site.variables = before


def test_what_an_earlier_version_has_left_is_sent(site: CelerySite) -> None:
    """The columns are stored by position, so their order must not change."""
    name = site.tasks.record.name
    extras = [None, None, 5.0, 7, None, False, None, None, None, True, None, None]
    call = [[name, '["old"]', "{}", "later", 3, False, False, extras], "2026-01-01 00:00:00.000000", 1]
    Handover.objects.create(key="an-earlier-id", task_name=name, call=json.dumps(call))
    sent: list[Any] = []
    assert handover.hand_over(Task.objects.none(), lambda item, ticket: sent.append((item, ticket))) == 1
    ((item, ticket),) = sent
    assert (item.call.queue, item.call.priority, item.retries) == ("later", 3, 1)
    assert (item.call.extras.result_ttl, item.call.extras.parent_id) == (5.0, 7)
    assert item.call.extras.is_sensitive and handover.take(ticket, may_repeat=False)


def test_two_at_once(site: CelerySite) -> None:
    wait(site.tasks.record, "x")

    def send(item: Any, ticket: Any) -> None:
        with pytest.raises(CannotStart):
            handover.hand_over(Task.objects.all(), send_handed_over)

    assert handover.hand_over(Task.objects.all(), send) == 1


def test_only_with_celery_in_charge(migrated: Any, settings: Any) -> None:
    settings.SNAPPEA = {}
    with pytest.raises(CommandError, match="Celery is not the engine"):
        run()
