"""Scheduled tasks: countdown, eta, and expires."""

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone as timezones
from django.utils.functional import SimpleLazyObject
from django.utils.timezone import now

from snappea.admin.columns import ago
from snappea.models import Task
from snappea.queue import store
from snappea.queue.clock import as_text
from snappea.queue.database import connect, raw
from snappea.queue.operations import requeue
from snappea.queue.store import AT_ONCE
from snappea.tasks import extras
from tests.foreman.test_loop import _cpu_seconds
from tests.playground.lifecycle import perishable
from tests.playground.tasks import fail, nothing, record, wait_for
from tests.site import Site, wait_until

DAY = date(2100, 1, 1)
MOMENT = "%Y-%m-%d %H:%M:%S.%f"


def stand_in(site: Site, count: int, **columns: object) -> None:
    """Write rows in one transaction; their keys are 1 to count."""
    names = "".join(f", {name}" for name in columns)
    site.sql(
        "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)"
        f"INSERT INTO snappea_task (task_name, args, enqueued_at{names})"
        f"SELECT ?, '[' || n || ']', datetime('now'){', ?' * len(columns)} FROM number",
        count,
        record.name,
        *columns.values(),
    )


def started(site: Site) -> list[str]:
    return [line[1] for line in site.ledger.lines() if line[0] == "start"]


# what apply_async takes


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"eta": datetime(2100, 1, 1)}, ValueError, "is naive, which makes it ambiguous: pass an aware"),
        ({"expires": datetime(2100, 1, 1)}, ValueError, "is naive"),
        ({"eta": datetime(2100, 1, 1, tzinfo=UTC), "countdown": 1}, ValueError, "countdown or eta, not both"),
        ({"countdown": "60"}, TypeError, "'60' must be a number of seconds"),
        ({"countdown": True}, TypeError, "True must be a number of seconds"),
        ({"countdown": float("nan")}, ValueError, "NaN"),
        ({"eta": 60}, TypeError, "eta=60 must be an aware datetime; countdown is for seconds"),
        ({"eta": "2100-01-01"}, TypeError, "must be an aware datetime"),
        ({"expires": "60"}, TypeError, "'60' must be a number of seconds"),
        ({"priority": 101}, ValueError, r"record: priority=101 must be from -100 to 100"),
        ({"priority": "high"}, ValueError, "priority='high' must be"),
        ({"queue": ""}, ValueError, "queue='' must be a string"),
        ({"queue": 3}, ValueError, "queue=3 must be a string"),
        ({"queue": "\ud800"}, ValueError, "must be a string"),
        ({"priority": True}, ValueError, "priority=True must be"),
        ({"priority": 10**5000}, ValueError, "must be from -100 to 100"),
        ({"eta": DAY}, TypeError, "eta=.* must be an aware datetime"),
        ({"eta": timedelta(1)}, TypeError, "eta=.* must be an aware datetime"),
        ({"eta": True}, TypeError, "eta=True must be an aware datetime"),
        ({"countdown": DAY}, TypeError, "countdown=.* must be a number of seconds"),
        ({"countdown": [1]}, TypeError, "must be a number of seconds"),
        ({"countdown": Decimal(1)}, TypeError, r"record: countdown=Decimal.* must be a number of seconds"),
        ({"expires": DAY}, TypeError, "expires=.* must be a number of seconds"),
        ({"expires": True}, TypeError, "expires=True must be a number of seconds"),
        ({"expires": "2100-01-01"}, TypeError, "record: expires='2100-01-01' must be a number of seconds, a"),
        ({"expires": float("nan")}, ValueError, "NaN"),
        ({"result_ttl": "1h"}, TypeError, "record: result_ttl='1h' must be a number of seconds"),
        ({"result_ttl": timedelta(1)}, TypeError, "result_ttl=.* must be a number of seconds"),
        *(
            ({"result_ttl": span}, ValueError, "from 0 to 1,000,000,000")
            for span in (-1, True, 1e300, 10**30)
        ),
        ({"result_ttl": float("nan")}, ValueError, "from 0 to"),
        ({"result_ttl": float("inf")}, ValueError, "from 0 to"),
        ({"countdown": SimpleLazyObject(lambda: 60)}, TypeError, "must be a number of seconds"),
        ({"result_ttl": SimpleLazyObject(lambda: 60)}, ValueError, "must be a number of seconds"),
        ({"queue": SimpleLazyObject(lambda: "mail")}, ValueError, "must be a string of 1 to 100 characters"),
        ({"priority": SimpleLazyObject(lambda: 5)}, ValueError, "must be from -100 to 100"),
        ({"kwargs": "x"}, TypeError, "kwargs='x' must be a dict"),
        ({"nonsense": 3}, TypeError, "no option 'nonsense'; the options are countdown, eta"),
        ({"count_down": 3}, TypeError, "did you mean 'countdown'"),
        ({"link": nothing}, TypeError, "no option 'link'; write a.s"),
        ({"headers": {}}, TypeError, "pass a keyword argument; .* HOOK_ADD_TASK_KWARGS"),
        ({"time_limit": 3}, TypeError, r"set it on the task: @task\(time_limit=60\)"),
    ],
)
def test_what_makes_no_sense_is_refused_and_not_written(
    site: Site, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        record.apply_async(("x",), **options)
    assert Task.objects.count() == 0


def test_a_queue_that_is_not_declared_is_refused(site: Site, settings: Any) -> None:
    settings.SNAPPEA = site.settings | {"QUEUES": {"mail": {}}}
    with pytest.raises(ValueError, match=r"no queue 'mial' in SNAPPEA\[\"QUEUES\"\], only default, mail"):
        record.apply_async(("x",), queue="mial")
    assert Task.objects.count() == 0
    record.apply_async(("x",), queue="mail")
    record.apply_async(("x",), queue="default")
    assert list(Task.objects.order_by("id").values_list("queue", flat=True)) == ["mail", "default"]


def test_what_apply_async_takes_stands_on_the_row(site: Site) -> None:
    eta = datetime(2100, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    expires = datetime(2100, 1, 2, tzinfo=UTC)
    record.apply_async(kwargs={"key": "x"}, eta=eta, expires=expires, priority=-7, queue="mail")
    row = Task.objects.get()
    assert (row.status, row.run_after, row.expires_at) == ("scheduled", eta, expires)
    assert (row.args, row.kwargs, row.priority, row.queue) == ("[]", '{"key":"x"}', -7, "mail")


@pytest.mark.parametrize("countdown", [3600, 3600.0, timedelta(hours=1)])
def test_a_countdown_counts_from_now(site: Site, countdown: Any) -> None:
    before = now()
    record.apply_async(("x",), countdown=countdown)
    row = Task.objects.get()
    assert row.run_after is not None and row.status == "scheduled"
    assert before <= row.run_after - timedelta(hours=1) <= now()


@pytest.mark.parametrize("nothing_to_wait_for", [{}, {"countdown": 0}, {"countdown": timedelta()}])
def test_without_a_time_it_is_ready(site: Site, nothing_to_wait_for: Any) -> None:
    record.apply_async(("x",), **nothing_to_wait_for)
    assert Task.objects.values_list("status", "run_after").get() == ("ready", None)


@pytest.mark.parametrize(
    "past",
    [
        *({"countdown": span} for span in (-5, -1e11, -1e300, -float("inf"), timedelta.min, -(10**30))),
        {"eta": datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))},
        {"eta": datetime(1970, 1, 1, tzinfo=UTC)},
    ],
)
def test_what_lies_in_the_past_is_ready(site: Site, past: Any) -> None:
    record.apply_async(("x",), **past)
    record.apply_async(("y",), countdown=3600)
    assert list(Task.objects.order_by("pk").values_list("status", flat=True)) == ["ready", "scheduled"]
    assert requeue(Task.objects.filter(status="scheduled"), countdown=past.get("countdown", 0)) == 1
    assert Task.objects.filter(run_after__gt=now()).count() == 0
    for wrong, error in (("60", TypeError), (True, TypeError), (float("nan"), ValueError)):
        with pytest.raises(error, match="countdown="):
            requeue(Task.objects.all(), countdown=wrong)  # type: ignore[arg-type]


def test_a_time_that_utc_cannot_count_to_is_the_last_one(site: Site) -> None:
    end = datetime.max.replace(tzinfo=timezone(-timedelta(hours=12)))
    record.apply_async(("x",), eta=end, expires=end)
    assert site.sql("SELECT run_after, expires_at FROM snappea_task") == [(str(datetime.max),) * 2]


@pytest.mark.parametrize("countdown", [1e300, float("inf"), timedelta.max])
def test_the_end_of_time_is_a_time(site: Site, countdown: Any) -> None:
    record.apply_async(("x",), countdown=countdown, expires=countdown)
    assert site.sql("SELECT run_after, expires_at FROM snappea_task") == [(str(datetime.max),) * 2]
    foreman = site.foreman()
    record.delay("y")
    wait_until(lambda: site.ledger.count("end", "y"))
    assert foreman.stop() == 0 and site.counts() == {"scheduled": 1}


def test_the_end_of_time_can_be_shown(site: Site, settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    record.apply_async(("x",), countdown=float("inf"), expires=float("inf"))
    row = Task.objects.get()
    with timezones.override("Pacific/Auckland"):
        call_command("snappea", "list", "scheduled")
        assert row.run_after and 'title="12/31/9999 23:59:59"' in ago(row.run_after)
    assert "9999-12-31 23:59:59" in capsys.readouterr().out


@pytest.fixture
def naive(site: Site, settings: Any) -> Iterator[None]:
    """Set USE_TZ = False."""
    settings.USE_TZ = False
    settings.TIME_ZONE = "America/New_York"
    yield
    settings.TIME_ZONE = "UTC"
    settings.USE_TZ = True


def test_without_time_zones_times_are_local(naive: None) -> None:
    moment = datetime(2026, 1, 1, 12)
    assert as_text(moment) == "2026-01-01 12:00:00"
    assert extras.run_after(None, moment) == "2026-01-01 12:00:00"
    before = datetime.now()
    in_an_hour = datetime.strptime(extras.moment_of(timedelta(hours=1)), MOMENT)
    assert before <= in_an_hour - timedelta(hours=1) <= datetime.now()


def test_without_time_zones_an_aware_time_is_still_right(naive: None) -> None:
    assert datetime.fromisoformat(as_text(datetime(2026, 1, 1, 12, tzinfo=UTC))) == datetime(2026, 1, 1, 7)


def test_without_time_zones_a_task_is_due_all_the_same(naive: None, site: Site) -> None:
    record.apply_async(("x",), eta=datetime(2026, 1, 1, 12), expires=60)
    row = Task.objects.get()
    assert row.run_after == datetime(2026, 1, 1, 12)
    assert row.expires_at is not None and row.expires_at > datetime.now()


# when it runs


def test_nothing_runs_early(site: Site, wakeups: str) -> None:
    site.foreman()
    before = time.monotonic()
    record.apply_async(("number",), countdown=0.4)
    record.apply_async(("timedelta",), countdown=timedelta(milliseconds=300))
    record.apply_async(("eta",), eta=now() + timedelta(milliseconds=600))
    wait_until(lambda: sorted(site.ledger.keys("end")) == ["eta", "number", "timedelta"])
    for key, least in {"number": 0.4, "timedelta": 0.3, "eta": 0.6}.items():
        assert site.ledger.moments("start", key)[0] - before >= least - 0.01


def test_what_is_due_earlier_is_ready_earlier(site: Site) -> None:
    due = now() + timedelta(hours=1)
    moments = [due + timedelta(minutes=number) for number in range(5)]
    for number in (3, 1, 4, 0, 2):
        record.apply_async((number,), eta=moments[number])
    for number, moment in enumerate(moments):
        assert store.promote(raw(connect()), as_text(moment)) == 1
        assert Task.objects.filter(status="ready", args=f"[{number}]").exists()


def test_what_was_due_in_the_past_runs_at_once(site: Site) -> None:
    site.foreman()
    record.apply_async(("eta",), eta=datetime(1970, 1, 1, tzinfo=UTC))
    record.apply_async(("countdown",), countdown=-60)
    wait_until(lambda: sorted(site.ledger.keys("end")) == ["countdown", "eta"])


def test_many_that_are_due_in_one_instant(site: Site) -> None:
    """They run in order, and a task with a higher priority does not wait for all of them."""
    count, go = 3 * AT_ONCE, site.directory / "go"
    due = (now() + timedelta(seconds=1)).strftime(MOMENT)
    stand_in(site, count, status="scheduled", run_after=due)
    waits = f'["20", "{go}"]'
    site.sql("UPDATE snappea_task SET task_name = ?, args = ? WHERE id = 20", wait_for.name, waits)
    site.foreman(NUM_WORKERS=1)
    wait_until(lambda: site.ledger.count("start", "20"))
    record.apply_async(("urgent",), priority=10)
    go.touch()
    wait_until(lambda: len(site.ledger.keys("end")) == count + 1)
    order = started(site)
    assert order.index("urgent") < count
    order.remove("urgent")
    assert order == [str(number) for number in range(1, count + 1)]


def test_waiting_for_a_time_costs_nothing(site: Site, wakeups: str) -> None:
    foreman = site.foreman()
    record.apply_async(("later",), countdown=3)
    record.apply_async(("never",), countdown=3600, expires=1800)
    nothing.delay()
    site.wait_until_empty()
    spent = _cpu_seconds(foreman.pid)
    wait_until(lambda: site.ledger.count("end", "later"))
    assert _cpu_seconds(foreman.pid) - spent < 1.5  # it does not spin


# expires


def test_what_has_waited_too_long_is_not_run(site: Site) -> None:
    go = site.directory / "go"
    foreman = site.foreman(NUM_WORKERS=1)
    wait_for.delay("blocked", str(go))
    wait_until(lambda: site.ledger.count("start", "blocked"))
    record.apply_async(("seconds",), expires=0.2)
    record.apply_async(("timedelta",), expires=timedelta(milliseconds=200))
    record.apply_async(("datetime",), expires=now() + timedelta(milliseconds=200))
    perishable.delay("option")
    perishable.apply_async(("overridden",), expires=3600)
    record.apply_async(("in time",), expires=3600)
    last = Task.objects.order_by("-id").values_list("expires_at", flat=True)[2]
    assert last is not None
    wait_until(lambda: now() > last)
    go.touch()
    wait_until(lambda: len(site.ledger.keys("end")) == 3 and site.counts() == {})
    assert site.ledger.keys("end").keys() == {"blocked", "overridden", "in"}
    for number, name in ((2, "record"), (3, "record"), (4, "record"), (5, "perishable")):
        foreman.wait_for_output(rf"WARNING Expired .*\.{name} #{number}, which waited too long")
    assert foreman.output().count("Expired") == 4


def test_what_expires_before_it_is_due_goes(site: Site, wakeups: str) -> None:
    foreman = site.foreman()
    record.apply_async(("x",), countdown=3600, expires=0.3)
    foreman.wait_for_output(r"Expired .*record #1")
    wait_until(lambda: site.counts() == {})
    assert site.ledger.lines() == []


def test_however_many_have_expired_none_is_run(site: Site) -> None:
    count = 3 * AT_ONCE
    stand_in(site, count, expires_at="2026-01-01 00:00:00")
    foreman = site.foreman(NUM_WORKERS=4)
    record.delay("fresh")
    wait_until(lambda: site.counts() == {} and site.ledger.count("end", "fresh"))
    assert started(site) == ["fresh"]
    wait_until(lambda: foreman.output().count("Expired") == count)


def test_what_runs_or_has_ended_does_not_expire(site: Site) -> None:
    go = site.directory / "go"
    foreman = site.foreman(NUM_WORKERS=2)
    fail.apply_async(("ended",), expires=3600)
    wait_for.apply_async(("runs", str(go)), expires=3600)
    wait_until(lambda: site.counts() == {"failed": 1, "running": 1})
    assert Task.objects.get(status="failed").expires_at is None, "it keeps no Foreman awake"
    Task.objects.filter(status="running").update(expires_at=now() - timedelta(hours=1))
    for key in "abc":  # a round each, in which it would expire, if it could
        record.delay(key)
        wait_until(partial(site.ledger.count, "end", key))
    go.touch()
    wait_until(lambda: site.counts() == {"failed": 1})
    assert site.ledger.count("end", "runs") == 1 and "Expired" not in foreman.output()
