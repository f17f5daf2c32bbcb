"""Periodic tasks: each tick exactly once, despite kills and clock changes; pause, resume and fire."""

import random
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections

from snappea import schedules
from snappea.errors import CannotStart, ConfigurationError, ExtraMissing, TaskDefinitionError, UnknownQueue
from snappea.foreman.scheduler import Scheduler
from snappea.models import Schedule, Task
from snappea.queue import operations
from snappea.queue.clock import as_text, now
from snappea.queue.database import connect, raw, transact
from snappea.schedules.plans import problems
from snappea.signals import task_enqueued
from snappea.tasks.function import task
from tests.clock import set_clock
from tests.playground.gated import alone
from tests.playground.tasks import fail, nap, record
from tests.site import Made, Site, wait_until

pytestmark = pytest.mark.long

EVERY = {"task": record.name, "every": 3600, "args": ["tick"]}


def declare(site: Site, settings: Any, *entries: dict[str, Any]) -> None:
    """Declare schedules, for this process and the following ones."""
    site.settings["SCHEDULES"] = list(entries)
    settings.SNAPPEA = dict(site.settings)


def start(scheduler: Scheduler | None = None) -> Scheduler:
    """Synchronize the schedules as a Foreman does when it starts."""
    scheduler = scheduler or Scheduler()
    with transact(connect()) as db:
        scheduler.open(db, now())
    return scheduler


def round_of(scheduler: Scheduler) -> bool:
    """Enqueue due ticks as a Foreman does in a round."""
    scheduler.prepare(raw(connect()), now())
    with transact(connect()) as db:
        scheduler.fire(db, now())
    return scheduler.report()


def make_due(seconds_ago: float = 0, **columns: Any) -> None:
    """Make all schedules due some time ago."""
    Schedule.objects.update(next_run=datetime.now(UTC) - timedelta(seconds=seconds_ago), **columns)


def ticks() -> list[datetime | None]:
    """Return the ticks of the tasks in the table, in the order in which they were enqueued."""
    return list(Task.objects.order_by("pk").values_list("run_after", flat=True))


# exactly once


def test_a_tick_comes_on_time_and_the_next_one_after_it(site: Site, settings: Any, wakeups: str) -> None:
    declare(site, settings, {**EVERY, "every": 0.5})
    site.foreman("--queues", "unused")  # the ticks stay in the table, to be seen
    wait_until(lambda: Task.objects.count() >= 4)
    found = list(Task.objects.order_by("pk").values_list("run_after", "enqueued_at"))
    assert all(tick and tick <= enqueued_at for tick, enqueued_at in found), "none is early"
    steps = [(later or tick) - tick for (tick, _), (later, _) in pairwise(found) if tick]
    assert all(step and step % timedelta(seconds=0.5) == timedelta() for step in steps)


def test_many_kills(site: Site) -> None:
    """No tick twice, all of them on time, and the schedule continues after each kill."""
    site.variables["SNAPPEA_TEST_APPS"] = "tests.periodic"
    site.settings["SYNCHRONOUS"] = "FULL"
    chance = random.Random(5)
    for _ in range(15):
        foreman = site.foreman("--queues", "unused")  # the ticks stay in the table, to be seen
        time.sleep(chance.random() * 0.3)
        foreman.kill()
    seen = ticks()
    assert len(seen) > 5 and len(set(seen)) == len(seen)
    grid = {(tick - seen[0]) % timedelta(seconds=0.2) for tick in seen if tick and seen[0]}
    assert grid == {timedelta()}
    last = Schedule.objects.get(task_name="tests.periodic.tasks.often")
    assert last.last_run and last.last_run == seen[-1]
    assert last.next_run == last.last_run + timedelta(seconds=0.2)


def test_a_task_that_was_enqueued_by_a_tick_runs_once_though_the_foreman_is_killed(site: Site) -> None:
    site.variables["SNAPPEA_TEST_APPS"] = "tests.periodic"
    chance = random.Random(6)
    for _ in range(6):
        foreman = site.foreman()
        time.sleep(chance.random() * 0.4)
        foreman.kill()
    foreman = site.foreman()
    before = site.ledger.count("often")
    wait_until(lambda: site.ledger.count("often") > before)
    assert foreman.stop() == 0
    # every id was a tick of its own: it ran, or is kept for the kill that hit it
    ids = site.sql("SELECT seq FROM sqlite_sequence WHERE name = 'snappea_task'")[0][0]
    kept = {status for (status,) in site.sql("SELECT status FROM snappea_task")}
    assert kept <= {"interrupted", "ready"}
    assert site.ledger.count("often") + Task.objects.count() >= ids >= site.ledger.count("often")


def test_two_foremen_race_for_a_tick(site: Site, settings: Any) -> None:
    """If there were two Foremen, only one of them would enqueue the tick."""
    declare(site, settings, EVERY)
    start()
    for _ in range(20):
        make_due()
        barrier = threading.Barrier(2)

        def race(barrier: threading.Barrier = barrier) -> None:
            scheduler = Scheduler()
            scheduler.prepare(raw(connect()), now())
            barrier.wait()
            with transact(connect()) as db:
                scheduler.fire(db, now())
            connections.close_all()

        racers = [threading.Thread(target=race) for _ in range(2)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
    assert Task.objects.count() == 20


def test_two_foremen_that_start_at_once_write_one_row(site: Site, settings: Any) -> None:
    declare(site, settings, EVERY)
    start(), start()
    assert Schedule.objects.count() == 1


def test_a_round_that_is_rolled_back_enqueues_nothing(site: Site, settings: Any) -> None:
    declare(site, settings, EVERY)
    scheduler = start()
    make_due()
    scheduler.prepare(raw(connect()), now())
    with pytest.raises(ZeroDivisionError), transact(connect()) as db:
        scheduler.fire(db, now())
        raise ZeroDivisionError
    assert Task.objects.count() == 0
    assert round_of(scheduler) and Task.objects.count() == 1
    assert not round_of(scheduler) and Task.objects.count() == 1


def test_the_clock_is_set_back_and_forth(site: Site, settings: Any) -> None:
    """No tick is repeated, and none is early."""
    declare(site, settings, {"task": record.name, "cron": "* * * * * *", "args": ["tick"]})
    site.variables["SNAPPEA_TEST_APPS"] = "tests.clock.SettableClock"
    foreman = site.foreman("--queues", "unused")
    wait_until(lambda: len(ticks()) >= 2)
    for step in (-3600, 0, 3600, -3600, 3600, 3601):
        set_clock(site.directory, step)
        time.sleep(1.5)  # it looks at the clock once a second; then there is nothing to wait for but ticks
    seen = ticks()
    assert len(set(seen)) == len(seen)
    assert foreman.stop() == 0


def test_a_clock_that_was_days_ahead_does_not_silence_a_schedule(site: Site, settings: Any) -> None:
    declare(site, settings, EVERY)
    scheduler = start()
    ahead = datetime.now(UTC) + timedelta(days=3000)
    Schedule.objects.update(next_run=ahead + timedelta(hours=1), last_run=ahead)
    start()
    following = Schedule.objects.get().next_run
    assert following and following < datetime.now(UTC) + timedelta(hours=1, seconds=1)
    # and so while it runs
    Schedule.objects.update(next_run=ahead + timedelta(hours=1), last_run=ahead)
    scheduler.look(connect(), as_text(ahead))
    scheduler.look(connect(), now())
    following = Schedule.objects.get().next_run
    assert following and following < datetime.now(UTC) + timedelta(hours=1, seconds=1)


# what was missed


def test_what_was_missed_is_caught_up_with_once(site: Site, settings: Any) -> None:
    declare(site, settings, {**EVERY, "every": 60})
    start()
    make_due(seconds_ago=1000)
    scheduler = start()
    assert round_of(scheduler) and not round_of(scheduler)
    assert len(ticks()) == 1
    schedule = Schedule.objects.get()
    assert schedule.last_run == ticks()[0] and schedule.next_run
    assert timedelta() < schedule.next_run - datetime.now(UTC) <= timedelta(seconds=60)
    assert datetime.now(UTC) - timedelta(seconds=60) < (schedule.last_run or schedule.next_run)


def test_without_catch_up_it_is_skipped(site: Site, settings: Any, caplog: Any) -> None:
    declare(site, settings, {**EVERY, "catch_up": False})
    make = start()
    make_due(seconds_ago=1000)
    assert round_of(make)
    assert ticks() == [] and "is skipped, because catch_up is off" in caplog.text
    schedule = Schedule.objects.get()
    assert schedule.last_run is None and schedule.next_run and schedule.next_run > datetime.now(UTC)


def test_without_catch_up_one_that_is_hardly_late_is_not_missed(site: Site, settings: Any) -> None:
    """A restart of the Foreman takes a moment, too."""
    declare(site, settings, {**EVERY, "catch_up": False})
    scheduler = start()
    make_due(seconds_ago=20)
    assert round_of(scheduler) and len(ticks()) == 1


def test_a_foreman_that_was_down_catches_up(site: Site, settings: Any) -> None:
    declare(site, settings, EVERY)
    assert site.foreman().stop() == 0
    make_due(seconds_ago=100_000)
    site.foreman()
    wait_until(lambda: site.ledger.count("end", "tick") == 1)
    wait_until(lambda: Schedule.objects.get().outcome() == "successful")
    assert site.ledger.count("start", "tick") == 1


# what the code declares


def test_what_the_decorator_and_the_setting_declare(site: Site, settings: Any, made: Made) -> None:
    @task(name="tests.by_decorator", cron="0 3 * * mon", timezone="Asia/Tokyo", catch_up=False)
    def by_decorator() -> None: ...

    @task(name="tests.steady", every=timedelta(minutes=10), aliases=["tests.formerly"])
    def steady() -> None: ...

    entry = {
        "task": record.name,
        "cron": "*/5 * * * *",
        "kwargs": {"key": 1},
        "queue": "mail",
        "name": "five",
    }
    declare(site, settings, entry)
    start()
    rows = {row.name: row for row in Schedule.objects.all()}
    assert rows.keys() == {"tests.by_decorator", "tests.steady", "five"}, "an alias is no second schedule"
    weekly = rows["tests.by_decorator"]
    assert (weekly.expression, weekly.timezone, weekly.catch_up) == ("0 3 * * mon", "Asia/Tokyo", False)
    assert weekly.next_run and weekly.next_run.strftime("%a %H:%M") == "Sun 18:00"
    assert rows["tests.steady"].expression == "every 600 s"
    five = rows["five"]
    assert (five.task_name, five.kwargs, five.queue, five.timezone) == (
        record.name,
        '{"key":1}',
        "mail",
        "UTC",
    )
    make_due()
    assert round_of(start())
    enqueued = Task.objects.get(task_name=record.name)
    assert (enqueued.queue, enqueued.kwargs, enqueued.status) == ("mail", '{"key":1}', "ready")


def test_what_is_no_longer_in_the_code_is_removed_at_the_next_start(
    site: Site, settings: Any, caplog: Any
) -> None:
    declare(site, settings, EVERY, {**EVERY, "name": "other"})
    start()
    declare(site, settings, EVERY)
    start()
    assert [row.name for row in Schedule.objects.all()] == [record.name]
    assert "Schedule other is no longer in the code and was removed." in caplog.text


def test_a_restart_keeps_the_next_tick_and_a_change_computes_it_again(site: Site, settings: Any) -> None:
    declare(site, settings, EVERY)
    start()
    planned = Schedule.objects.get().next_run
    declare(site, settings, {**EVERY, "args": ["other"], "catch_up": False})
    start()
    row = Schedule.objects.get()
    assert (row.next_run, row.args, row.catch_up) == (planned, '["other"]', False)
    declare(site, settings, {**EVERY, "every": 7200})
    start()
    changed = Schedule.objects.get().next_run
    assert changed and planned and changed - planned > timedelta(minutes=59)


def test_options_hold_for_what_a_tick_enqueues(site: Site, settings: Any, made: Made) -> None:
    @task(name="tests.made.limited", every=1, unique=True, max_concurrency=1, priority=7, expires=60)
    def limited() -> None: ...

    scheduler = start()
    make_due()
    round_of(scheduler)
    make_due()
    round_of(scheduler)
    row = Task.objects.get()
    assert (row.priority, row.lane, row.lane_limit) == (7, "tests.made.limited", 1)
    assert row.expires_at and row.unique_key
    assert Schedule.objects.get().last_task_id == row.pk, "the one that waits is what this tick wanted"


def test_one_that_takes_longer_than_its_interval_does_not_overlap(site: Site, settings: Any) -> None:
    declare(site, settings, {"task": alone.name, "every": 0.1, "args": ["x", "", 0.3]})
    site.foreman()
    wait_until(lambda: site.ledger.count("end", "x") >= 3)
    events = [word for word, *_ in site.ledger.lines()]
    assert set(events[::2]) == {"start"} and set(events[1::2]) == {"end"}


def test_the_signal_is_sent_once_it_is_committed(site: Site, settings: Any) -> None:
    declare(site, settings, EVERY)
    told: list[Any] = []

    def receiver(sender: Any, id: int, **kwargs: Any) -> None:
        told.append((sender, Task.objects.get(pk=id).status))

    task_enqueued.connect(receiver)
    try:
        scheduler = start()
        make_due()
        round_of(scheduler)
    finally:
        task_enqueued.disconnect(receiver)
    assert told == [(record, "ready")]


# what became of it


@pytest.fixture
def outcomes(site: Site, settings: Any) -> Iterator[Site]:
    declare(site, settings, EVERY)
    round_of(_due(start()))
    assert Schedule.objects.get().outcome() == "ready"
    yield site


def _due(scheduler: Scheduler) -> Scheduler:
    make_due()
    return scheduler


def test_the_outcome_of_one_that_succeeded(outcomes: Site) -> None:
    outcomes.foreman()
    wait_until(lambda: Schedule.objects.get().outcome() == "successful")


def test_the_outcome_of_one_that_failed(outcomes: Site) -> None:
    Task.objects.update(task_name=fail.name)
    outcomes.foreman()
    wait_until(lambda: Schedule.objects.get().outcome() == "failed")


def test_the_outcome_of_one_that_was_cancelled(outcomes: Site) -> None:
    operations.cancel(Task.objects.all())
    assert Schedule.objects.get().outcome() == "cancelled"


def test_the_outcome_of_one_that_expired(outcomes: Site) -> None:
    Task.objects.update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    outcomes.foreman()
    wait_until(lambda: Schedule.objects.get().outcome() == "expired")


def test_what_cannot_be_enqueued_is_said_and_does_not_stall_the_others(site: Site, settings: Any) -> None:
    declare(site, settings, {**EVERY, "every": 0.2}, {**EVERY, "every": 0.2, "name": "bad"})
    foreman = site.foreman()
    site.sql("UPDATE snappea_schedule SET args = '[1, 2, 3]' WHERE name = 'bad'")
    foreman.wait_for_output(r"ERROR Schedule bad: not enqueued: TypeError\(.*too many positional arguments")
    before = site.ledger.count("end", "tick")
    wait_until(lambda: site.ledger.count("end", "tick") > before + 2)
    assert "not enqueued" in Schedule.objects.get(name="bad").outcome()
    site.sql("UPDATE snappea_schedule SET expression = 'nonsense' WHERE name = 'bad'")
    foreman.wait_for_output("ERROR Schedule bad: cron='nonsense'")
    assert foreman.stop() == 0


@pytest.mark.parametrize(("late", "gap"), [(0.5, 19.5), (5, 20), (15, 20), (20.5, 19.5), (35, 20), (38, 20)])
def test_an_interval_lies_between_a_late_run_and_the_next(
    site: Site, settings: Any, late: float, gap: float
) -> None:
    """However long the Foreman was down, and despite restarts and deploys in between."""
    declare(site, settings, {**EVERY, "every": 20})
    scheduler = start()
    moment = datetime.now(UTC)
    due = moment - timedelta(seconds=late)
    Schedule.objects.update(next_run=due, last_run=due - timedelta(seconds=20))
    scheduler.prepare(raw(connect()), as_text(moment))
    with transact(connect()) as db:
        scheduler.fire(db, as_text(moment))
    declare(site, settings, {**EVERY, "every": 20, "args": ["other"]})
    start()
    (tick,) = ticks()
    following = Schedule.objects.get().next_run
    assert tick and following and following - tick == timedelta(seconds=20)
    assert following - moment == timedelta(seconds=gap)


def test_an_interval_lies_between_runs_though_the_foreman_was_away(site: Site) -> None:
    site.settings["SCHEDULES"] = [{**EVERY, "every": 2}]
    foreman = site.foreman()
    wait_until(lambda: site.ledger.count("start", "tick") == 1)
    foreman.stop()
    time.sleep(3.5)  # until shortly before the next but one
    site.foreman()
    wait_until(lambda: site.ledger.count("start", "tick") == 3)
    _first, late, following = site.ledger.moments("start", "tick")
    assert following - late > 0.9


def test_resuming_before_its_time_changes_nothing(site: Site, settings: Any) -> None:
    declare(site, settings, EVERY)
    start()
    planned = Schedule.objects.get().next_run
    for _ in range(3):
        schedules.pause(record.name)
        schedules.resume(record.name)
        start()
    assert Schedule.objects.get().next_run == planned and not ticks()


def test_another_interval_counts_from_the_last_run(site: Site, settings: Any) -> None:
    declare(site, settings, EVERY)
    start()
    last = datetime.now(UTC) - timedelta(minutes=50)
    Schedule.objects.update(last_run=last, next_run=last + timedelta(hours=1))
    for minutes, expected in ((20, 60), (24 * 60, 24 * 60), (60, 60)):
        declare(site, settings, {**EVERY, "every": minutes * 60})
        start()
        assert Schedule.objects.get().next_run == last + timedelta(minutes=expected)
    assert not ticks()


def test_what_was_changed_between_the_look_and_the_round_is_not_enqueued_as_it_was(
    site: Site, settings: Any
) -> None:
    declare(site, settings, EVERY)
    scheduler = start()
    make_due()
    scheduler.prepare(raw(connect()), now())
    Schedule.objects.update(args='["changed"]')
    with transact(connect()) as db:
        scheduler.fire(db, now())
    assert not ticks()
    round_of(scheduler)
    assert Task.objects.get().args == '["changed"]'


# what people decide


def test_pause_and_resume(site: Site, settings: Any) -> None:
    declare(site, settings, EVERY)
    scheduler = start()
    assert schedules.pause(record.name)
    make_due(seconds_ago=5000)
    assert not round_of(scheduler) and not ticks()
    start()
    assert Schedule.objects.get().is_paused, "which survives a restart"
    assert schedules.resume(record.name)
    assert not round_of(scheduler) and not ticks(), "what fell into the pause is not caught up with"
    following = Schedule.objects.get().next_run
    assert following and following > datetime.now(UTC)
    assert not schedules.pause("no such") and not schedules.resume("no such")


def test_one_that_is_paused_between_the_look_and_the_round(site: Site, settings: Any) -> None:
    declare(site, settings, EVERY)
    scheduler = start()
    make_due()
    scheduler.prepare(raw(connect()), now())
    schedules.pause(record.name)
    with transact(connect()) as db:
        scheduler.fire(db, now())
    assert not ticks()


def test_a_running_foreman_heeds_them_at_once(site: Site, settings: Any, wakeups: str) -> None:
    declare(site, settings, {**EVERY, "every": 0.1})
    site.foreman()
    wait_until(lambda: site.ledger.count("end", "tick") > 2)
    schedules.pause(record.name)
    site.wait_until_empty()
    before = site.ledger.count("start", "tick")
    schedules.fire(record.name)
    wait_until(lambda: site.ledger.count("end", "tick") == before + 1)
    schedules.resume(record.name)
    wait_until(lambda: site.ledger.count("end", "tick") > before + 3)


def test_fire_now(site: Site, settings: Any) -> None:
    declare(site, settings, {**EVERY, "queue": "mail"})
    start()
    planned = Schedule.objects.get().next_run
    result = schedules.fire(record.name)
    row, schedule = Task.objects.get(), Schedule.objects.get()
    assert (row.pk, row.queue, row.args) == (result.id, "mail", '["tick"]')
    assert (schedule.last_task_id, schedule.next_run) == (result.id, planned)
    with pytest.raises(LookupError, match="There is no schedule 'no such'"):
        schedules.fire("no such")


def test_the_command(site: Site, settings: Any, capsys: Any) -> None:
    entry = {**EVERY, "name": "nightly", "cron": "30 2 * * *", "timezone": "Europe/Amsterdam"}
    del entry["every"]
    declare(site, settings, EVERY, entry)
    call_command("snappea", "schedules")
    shown = capsys.readouterr().out
    assert shown.count("not known to a Foreman yet") == 2
    assert f"nightly\n    30 2 * * * (Europe/Amsterdam)\n    task: {record.name}\n    next: " in shown
    next_three = shown.split("nightly")[1].split("next: ")[1].splitlines()[0].split(", ")
    assert len(next_three) == 3 and all(
        " 02:30:00 CE" in one or " 03:00:00 CEST" in one for one in next_three
    )
    start()
    call_command("snappea", "schedules", "--pause", "nightly")
    call_command("snappea", "schedules", "--fire", record.name)
    call_command("snappea", "schedules")
    shown = capsys.readouterr().out
    assert "paused" in shown and ", ready" in shown and f"Enqueued {record.name} #" in shown
    call_command("snappea", "schedules", "--resume", "nightly")
    call_command("snappea", "schedules")
    assert "paused" not in capsys.readouterr().out
    for flag in ("--pause", "--resume", "--fire"):
        with pytest.raises(CommandError, match="There is no schedule 'no such'"):
            call_command("snappea", "schedules", flag, "no such")


# what is wrong


@pytest.mark.parametrize(
    ("entry", "kind", "words"),
    [
        ({**EVERY, "every": 60, "task": "shop.tasks.gone"}, Exception, "Unknown task 'shop.tasks.gone'"),
        ({"task": record.name, "cron": "* * * * *"}, TypeError, "missing a required argument: 'key'"),
        ({"task": record.name, "cron": "* 25 * * *", "args": [1]}, ConfigurationError, "the hour '25'"),
        ({**EVERY, "args": [{1, 2}]}, TypeError, "set"),
        ({"task": nap.name, "every": 5, "args": [1, 2, 3]}, TypeError, "too many positional arguments"),
        ({**EVERY, "queue": "x" * 101}, UnknownQueue, "must be a string of 1 to 100 characters"),
    ],
)
def test_problems(site: Site, settings: Any, entry: Any, kind: Any, words: str) -> None:
    settings.SNAPPEA = {"SCHEDULES": [entry]}
    found = problems()
    assert len(found) == 1 and isinstance(found[0][1], kind) and words in str(found[0][1])
    with pytest.raises(CannotStart), transact(connect()) as db:
        Scheduler().open(db, now())


def test_hooks_are_not_asked_before_there_is_a_call(site: Site, settings: Any) -> None:
    """For example a tenant that is known only in a request."""
    declare(site, settings, EVERY)
    settings.SNAPPEA = {**settings.SNAPPEA, "HOOK_ADD_TASK_KWARGS": lambda: 1 / 0}
    assert problems() == []
    scheduler = start()
    make_due()
    round_of(scheduler)
    assert "not enqueued: ZeroDivisionError" in Schedule.objects.get().outcome()


def test_a_task_of_django(site: Site, settings: Any) -> None:
    declare(site, settings, {"task": "tests.playground.djangotasks.add", "every": 0.2, "args": [1, 2]})
    site.foreman()
    wait_until(lambda: Task.objects.filter(status="successful", result="3", queue="default").count() > 1)


def test_two_of_one_name(site: Site, settings: Any) -> None:
    declare(site, settings, EVERY, EVERY)
    assert 'give each a "name" of its own' in str(problems()[0][1])


def test_without_cronsim(site: Site, settings: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    declare(site, settings, {"task": record.name, "args": [1], "cron": "* * * * *"})
    assert isinstance(problems()[0][1], ExtraMissing)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cron": "* * * * *", "every": 5}, "give cron or every, not both"),
        ({"cron": 5}, "cron=5 must be a string"),
        ({"every": 0}, "every=0 must be more than 0 seconds"),
        ({"every": "5"}, "every='5' must be more than 0 seconds"),
        ({"every": timedelta(seconds=-1)}, "must be more than 0 seconds"),
        ({"every": 5, "timezone": "UTC"}, "timezone needs cron"),
        ({"cron": "* * * * *", "timezone": 3}, "timezone=3 must be the name of a time zone"),
        ({"every": 5, "catch_up": 1}, "catch_up=1 must be True or False"),
    ],
)
def test_options_that_make_no_sense(options: Any, words: str) -> None:
    with pytest.raises(TaskDefinitionError) as raised:
        task(name="tests.nonsense", **options)(lambda: None)
    assert words in str(raised.value)
