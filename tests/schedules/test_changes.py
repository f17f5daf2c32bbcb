"""Schedules that users change, add and remove: exactly-once ticks, restarts, deploys, and the last runs."""

import json
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections

from snappea import schedules
from snappea.errors import ConfigurationError, ExtraMissing, UnknownQueue, UnknownTask
from snappea.models import Schedule, ScheduleRun, Task
from snappea.queue import operations
from snappea.queue.clock import now
from snappea.queue.database import connect, raw, transact
from snappea.schedules.rows import RUNS
from snappea.schedules.triggers import Cron, trigger
from tests.playground.tasks import echo, fail, record
from tests.schedules.test_schedules import EVERY, declare, make_due, round_of, start, ticks
from tests.site import Site, wait_until

pytestmark = pytest.mark.long

EACH_SECOND = "* * * * * *"
#: Changes the schedule "edited" as fast as it can: its arguments, and its times, which stay the same.
CHANGE_FOR_EVER = """
import itertools
from snappea import schedules
for number in itertools.count():
    schedules.change("edited", args=[number], cron=("* * * * * *", "*/1 * * * * *")[number % 2])
    print("changed", flush=True)
"""


def row(name: str = record.name) -> Schedule:
    """Return a schedule."""
    return Schedule.objects.get(name=name)


def declared() -> dict[str, Any]:
    """Return what the code declares of the changed schedule."""
    found: dict[str, Any] = json.loads(row().declared)
    return found


# exactly once


@pytest.mark.on_both
def test_ticks_while_the_schedule_is_changed_and_the_foreman_killed(site: Site, settings: Any) -> None:
    """No tick twice, and each one that a schedule has which is never changed."""
    entry = {"task": record.name, "cron": EACH_SECOND, "args": [0]}
    declare(site, settings, {**entry, "name": "edited"}, {**entry, "name": "control", "kwargs": {}})
    kills = 2
    foreman = site.foreman("--queues", "unused")  # the ticks stay in the table, to be seen
    editor = site.program(CHANGE_FOR_EVER)
    editor.wait_for_output("changed")
    for _ in range(kills):
        wait_for_runs(6)
        foreman.kill()
        foreman = site.foreman("--queues", "unused")
    wait_for_runs(6)
    assert editor.popen.poll() is None, editor.output()
    editor.kill()
    assert foreman.stop() == 0
    by_schedule = {name: [run.at for run in runs_of(name)] for name in ("edited", "control")}
    edited, control = map(set, by_schedule.values())
    assert [len(edited), len(control)] == [len(found) for found in by_schedule.values()], "no tick twice"
    last = min(max(edited), max(control))
    missed = [tick for tick in edited ^ control if tick <= last]
    assert len(missed) <= kills, "the first tick after a kill makes up for others"
    assert {run.task_id for run in ScheduleRun.objects.all()} == set(
        Task.objects.values_list("pk", flat=True)
    )
    assert Task.objects.exclude(args="[0]").values("args").distinct().count() > 3, (
        "with the changed arguments"
    )


def wait_for_runs(count: int) -> None:
    """Wait for so many more runs of all schedules."""
    before = ScheduleRun.objects.count()
    wait_until(lambda: ScheduleRun.objects.count() >= before + count)


def runs_of(name: str) -> list[ScheduleRun]:
    """Return the runs of a schedule."""
    return list(ScheduleRun.objects.filter(schedule=name).order_by("pk"))


@pytest.mark.on_both
def test_a_change_waits_for_the_round_that_enqueues_the_tick(site: Site, settings: Any) -> None:
    """Otherwise it would set the next run back to the tick that was enqueued."""
    declare(site, settings, EVERY)
    scheduler = start()
    make_due()
    scheduler.prepare(raw(connect()), now())
    changer = threading.Thread(target=_change_and_close)
    with transact(connect()) as db:
        scheduler.fire(db, now())
        changer.start()
        changer.join(timeout=0.3)
        assert changer.is_alive()
    changer.join()
    assert not round_of(scheduler) and len(ticks()) == 1
    assert row().args == '["changed"]' and row().last_task_id


def _change_and_close() -> None:
    schedules.change(record.name, args=["changed"])
    connections.close_all()


def test_a_change_between_the_look_and_the_round_loses_no_tick(site: Site, settings: Any) -> None:
    """Not even if it changes the times: what is due comes, with the new arguments."""
    declare(site, settings, EVERY)
    scheduler = start()
    make_due()
    due = row().next_run
    scheduler.prepare(raw(connect()), now())
    schedules.change(record.name, every=7200, args=["changed"])
    with transact(connect()) as db:
        scheduler.fire(db, now())
    assert not ticks()
    round_of(scheduler)
    assert ticks() == [due] and Task.objects.get().args == '["changed"]'
    following = row().next_run
    assert following and due and following - due == timedelta(hours=2)


def test_a_running_foreman_heeds_a_change_at_once(site: Site, settings: Any, wakeups: str) -> None:
    declare(site, settings, EVERY)
    site.foreman()
    schedules.change(record.name, every=0.1, args=["soon"])
    wait_until(lambda: site.ledger.count("end", "soon") > 2)
    schedules.add("another", echo, every=0.1, args=["added"])
    wait_until(lambda: "added" in site.ledger.text())
    assert schedules.remove("another")
    assert not Schedule.objects.filter(name="another").exists() and not runs_of("another")


# changes, restarts and deploys


@pytest.mark.on_both
def test_a_change_survives_a_restart_and_can_be_reset(site: Site, settings: Any, capsys: Any) -> None:
    declare(site, settings, EVERY)
    start()
    before = row()
    schedules.change(record.name, cron="0 3 * * *", timezone="Asia/Tokyo", queue="slow")
    start()
    changed = row()
    assert (changed.expression, changed.timezone, changed.queue) == ("0 3 * * *", "Asia/Tokyo", "slow")
    assert changed.args == before.args and changed.next_run and changed.next_run.hour == 18
    assert declared()["expression"] == "every 3600 s"
    (listed,) = schedules.listing()
    assert listed.planned.declared and not listed.problem and listed.runs[0] == changed.next_run
    assert schedules.reset(record.name) and not schedules.reset(record.name)
    assert not schedules.reset("no such")
    after = row()
    assert (after.expression, after.timezone, after.queue) == ("every 3600 s", "UTC", None)
    assert after.declared == ""


def test_a_deploy_keeps_the_changes_and_updates_the_rest(site: Site, settings: Any) -> None:
    declare(site, settings, EVERY)
    start()
    schedules.change(record.name, queue="slow")
    declare(site, settings, {**EVERY, "every": 60, "args": ["new"]})
    start()
    changed = row()
    assert (changed.queue, changed.expression, changed.args) == ("slow", "every 60 s", '["new"]')
    assert (declared()["queue"], declared()["args"]) == (None, '["new"]')
    declare(site, settings, {**EVERY, "queue": "slow"})
    start()
    assert row().declared == "", "the code now says the same"


def test_a_changed_schedule_that_left_the_code_is_removed(site: Site, settings: Any, caplog: Any) -> None:
    declare(site, settings, EVERY)
    start()
    schedules.change(record.name, every=60)
    schedules.fire(record.name)
    declare(site, settings)
    (listed,) = schedules.listing()
    assert listed.problem == "no longer in the code"
    start()
    assert not Schedule.objects.exists() and not ScheduleRun.objects.exists()
    assert "is no longer in the code and was removed" in caplog.text


def test_a_change_that_has_become_invalid_does_not_keep_the_foreman_from_starting(
    site: Site, settings: Any, caplog: Any
) -> None:
    declare(site, settings, EVERY)
    start()
    schedules.change(record.name, args=["two"])
    Schedule.objects.update(args='["one", "two"]')  # as if the task had lost a parameter
    scheduler = start()
    assert f"Schedule {record.name}, as a user wrote it: TypeError" in caplog.text
    assert "too many positional arguments" in schedules.listing()[0].problem
    make_due()
    round_of(scheduler)
    assert not ticks() and "too many positional arguments" in runs_of(record.name)[-1].outcome
    Schedule.objects.update(expression="nonsense")
    start()
    assert row().next_run is None and "nonsense" in schedules.listing()[0].problem
    schedules.change(record.name, every=60, args=["one"])
    assert row().next_run and not schedules.listing()[0].problem
    Schedule.objects.update(declared="{", expression="every 5 s")  # changed by hand
    start()
    assert (row().expression, row().declared) == ("every 3600 s", "")


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"cron": "0 25 * * *"}, ConfigurationError, "the hour '25' is wrong"),
        ({"cron": "0 3 * * *", "timezone": "Mars"}, ConfigurationError, "there is no such time zone"),
        ({"cron": "0 3 * * *", "every": 5}, ConfigurationError, 'either "cron" or "every"'),
        ({"every": 0}, ConfigurationError, "more than 0 seconds"),
        ({"args": "text"}, ConfigurationError, "has an invalid 'args': 'text'"),
        ({"args": [1, 2]}, TypeError, "too many positional arguments"),
        ({"args": [{1}]}, TypeError, "set"),
        ({"queue": "x" * 101}, UnknownQueue, "1 to 100 characters"),
        ({"task": fail.name}, TypeError, "A schedule has no option task"),
    ],
)
def test_an_invalid_change_changes_nothing(
    site: Site, settings: Any, changes: Any, kind: type[Exception], words: str
) -> None:
    declare(site, settings, EVERY)
    start()
    before = Schedule.objects.values().get()
    with pytest.raises(kind) as raised:
        schedules.change(record.name, **changes)
    assert words in str(raised.value)
    assert Schedule.objects.values().get() == before


def test_a_change_of_none(site: Site) -> None:
    with pytest.raises(LookupError, match="There is no schedule 'no such'"):
        schedules.change("no such", every=5)


def test_without_cronsim(site: Site, settings: Any, monkeypatch: Any) -> None:
    declare(site, settings, EVERY)
    start()
    schedules.change(record.name, cron="0 3 * * *")
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(ExtraMissing):
        schedules.change(record.name, cron="0 4 * * *")
    start()
    assert row().next_run is None, "the Foreman starts, and says why nothing comes"
    schedules.change(record.name, every=60)
    assert row().next_run


def test_with_celery_the_code_declares_the_schedules(site: Site, settings: Any) -> None:
    settings.SNAPPEA = {**site.settings, "ENGINE": "celery"}
    with pytest.raises(ConfigurationError, match="Celery's beat"):
        schedules.change(record.name, every=5)
    with pytest.raises(ConfigurationError, match="Celery's beat"):
        schedules.add("x", echo, every=5)


# added schedules


@pytest.mark.on_both
def test_an_added_schedule_stays(site: Site, settings: Any, capsys: Any) -> None:
    declare(site, settings, EVERY)
    start()
    schedules.add("tokyo", echo.name, cron="0 3 * * *", timezone="Asia/Tokyo", args=[1], kwargs={"a": 2})
    start()
    added = row("tokyo")
    assert (added.task_name, added.args, added.kwargs, added.is_added) == (echo.name, "[1]", '{"a":2}', True)
    assert added.next_run and added.next_run.hour == 18
    schedules.change("tokyo", every=60, args=[3])
    assert (row("tokyo").args, row("tokyo").declared) == ("[3]", "")
    scheduler = start()
    Schedule.objects.filter(name="tokyo").update(next_run=datetime.now(UTC))
    round_of(scheduler)
    assert Task.objects.get().args == "[3]"
    assert not schedules.reset("tokyo") and not schedules.remove(record.name), "that one is in the code"
    assert schedules.remove("tokyo") and not schedules.remove("tokyo")
    assert [found.name for found in Schedule.objects.all()] == [record.name]


@pytest.mark.parametrize(
    ("task", "kind", "words"),
    [
        (record.name, ConfigurationError, "To allow it, use @task(schedulable=True)"),
        ("shop.tasks.gone", UnknownTask, "Unknown task 'shop.tasks.gone'"),
        ("tests.playground.djangotasks.add", ConfigurationError, "cannot be scheduled at run time"),
    ],
)
def test_only_for_tasks_that_allow_it(site: Site, task: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as raised:
        schedules.add("mine", task, every=60, args=["x"])
    assert words in str(raised.value) and not Schedule.objects.exists()


def test_a_name_that_is_taken(site: Site, settings: Any) -> None:
    declare(site, settings, EVERY)
    start()
    with pytest.raises(ConfigurationError, match="There already is a schedule"):
        schedules.add(record.name, echo, every=60)
    assert row().task_name == record.name


def test_an_added_schedule_whose_task_is_no_longer_schedulable(
    site: Site, settings: Any, caplog: Any
) -> None:
    schedules.add("mine", echo, every=60)
    for name, words in ((record.name, "cannot be scheduled at run time"), ("shop.gone", "Unknown task")):
        Schedule.objects.update(task_name=name)
        scheduler = start()
        assert words in caplog.text and words in schedules.listing()[0].problem
        make_due()
        round_of(scheduler)
        assert not ticks() and words in runs_of("mine")[-1].outcome
        with pytest.raises((ConfigurationError, UnknownTask)):
            schedules.fire("mine")
        caplog.clear()
    assert row("mine").is_added


def test_the_code_takes_over_an_added_schedule(site: Site, settings: Any, caplog: Any) -> None:
    schedules.add("mine", echo, every=60, args=[1])
    declare(site, settings, {**EVERY, "name": "mine"})
    start()
    assert (row("mine").task_name, row("mine").is_added) == (record.name, False)
    assert "The code now declares it and replaces it" in caplog.text


def test_the_command_shows_changes(site: Site, settings: Any, capsys: Any) -> None:
    declare(site, settings, EVERY)
    start()
    schedules.change(record.name, every=60)
    schedules.add("mine", echo, every=60)
    Schedule.objects.filter(name="mine").update(task_name="shop.gone")
    call_command("snappea", "schedules")
    shown = capsys.readouterr().out
    assert "changed by a user" in shown and "added by a user" in shown
    assert "problem: UnknownTask" in shown


# the last runs


@pytest.mark.on_both
def test_the_last_runs_are_kept(site: Site, settings: Any) -> None:
    declare(site, settings, EVERY, {**EVERY, "name": "other"})
    scheduler = start()
    for _ in range(RUNS + 3):
        make_due()
        round_of(scheduler)
    for name in (record.name, "other"):
        runs = runs_of(name)
        assert len(runs) == RUNS and runs[-1].task_id == row(name).last_task_id
        assert [run.at for run in runs] == sorted(run.at for run in runs)


def test_runs_have_the_outcomes_of_their_tasks(site: Site, settings: Any) -> None:
    declare(site, settings, EVERY)
    start()
    first, second, third, fourth = (schedules.fire(record.name).id for _ in range(4))
    operations.cancel(Task.objects.filter(pk=first))
    Task.objects.filter(pk=second).update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    Task.objects.filter(pk=third).update(task_name=fail.name)
    assert runs_of(record.name)[0].outcome == "cancelled"
    site.foreman()
    expected = ["cancelled", "expired", "failed", "successful"]
    wait_until(lambda: [outcome for _run, outcome in schedules.runs()[record.name]] == expected)
    operations.delete(Task.objects.filter(pk=third))
    assert [outcome for _run, outcome in schedules.runs()[record.name]][2] == "deleted"
    assert fourth == row().last_task_id


def test_problems_and_skipped_runs_are_runs(site: Site, settings: Any) -> None:
    declare(site, settings, {**EVERY, "catch_up": False})
    scheduler = start()
    make_due(seconds_ago=1000)
    round_of(scheduler)
    make_due(args="[1, 2, 3]")
    round_of(scheduler)
    skipped, wrong = runs_of(record.name)
    assert (skipped.outcome, skipped.task_id) == ("skipped", None)
    assert "too many positional arguments" in wrong.outcome and wrong.task_id is None


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("0 3 * * *", "At 03:00 every day"),
        ("0 9 * * fri#2", "At 09:00 on the second Friday of the month"),
    ],
)
def test_times_in_words(expression: str, words: str) -> None:
    found = trigger(expression, "UTC")
    assert isinstance(found, Cron) and found.words() == words
