"""`manage.py snappea import-beat`: the tables of django-celery-beat become schedules."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from snappea import schedules
from snappea.models import Schedule, Task
from snappea.testing import override_snappea
from tests.playground.bound import call_again
from tests.playground.tasks import echo, nap, record
from tests.site import Site, wait_until

#: The tables as migrations 0001 to 0020 of django-celery-beat make them.
COLUMNS = {
    "periodictask": "id integer primary key, name varchar(200) unique, task varchar(200), args text, "
    "kwargs text, queue varchar(200), exchange varchar(200), routing_key varchar(200), expires datetime, "
    "enabled bool, last_run_at datetime, total_run_count integer, date_changed datetime, description text, "
    "crontab_id integer, interval_id integer, solar_id integer, one_off bool, start_time datetime, "
    "priority integer, headers text, clocked_id integer, expire_seconds integer",
    "intervalschedule": "id integer primary key, every integer, period varchar(24)",
    "crontabschedule": "id integer primary key, minute varchar(240), hour varchar(96), "
    "day_of_week varchar(64), day_of_month varchar(124), month_of_year varchar(64), timezone varchar(63)",
    "solarschedule": "id integer primary key, event varchar(24), latitude decimal, longitude decimal",
    "clockedschedule": "id integer primary key, clocked_time datetime",
}
LATER = datetime(2100, 1, 1, tzinfo=UTC)


def insert(table: str, **columns: Any) -> int:
    """Insert a row, and return its id."""
    names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
    values = [v.replace(tzinfo=None) if isinstance(v, datetime) else v for v in columns.values()]
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO django_celery_beat_{table} ({names}) VALUES ({marks})", values)
        return int(cursor.lastrowid)


def crontab(**fields: str) -> int:
    stars = dict.fromkeys(("minute", "hour", "day_of_week", "day_of_month", "month_of_year"), "*")
    return insert("crontabschedule", **{**stars, "timezone": "UTC", **fields})


def interval(every: int = 10, period: str = "minutes") -> int:
    return insert("intervalschedule", every=every, period=period)


def periodic(name: str, task: str = call_again.name, **columns: Any) -> None:
    """Add a PeriodicTask, every ten minutes unless it has another schedule."""
    if not any(key.endswith("_id") for key in columns):
        columns["interval_id"] = interval()
    rest = {"kwargs": "{}", "enabled": True, "total_run_count": 0, "one_off": False, "headers": "{}"}
    insert("periodictask", **{"name": name, "task": task, "args": '["x"]', **rest, **columns})


@pytest.fixture
def beat(site: Site, capsys: Any) -> Iterator[Any]:
    """Create the tables; return a function that imports them and returns what it wrote."""
    with connection.cursor() as cursor:
        for table, columns in COLUMNS.items():
            cursor.execute(f"CREATE TABLE django_celery_beat_{table} ({columns})")

    def run(*flags: str) -> list[str]:
        call_command("snappea", "import-beat", *flags)
        return list(capsys.readouterr().out.splitlines())

    yield run


def plans() -> dict[str, tuple[Any, ...]]:
    """Return the schedules that were added."""
    columns = ("task_name", "expression", "timezone", "args", "kwargs", "queue", "is_paused")
    rows = Schedule.objects.filter(is_added=True).values_list("name", *columns)
    return {name: tuple(values) for name, *values in rows}


def test_intervals_and_crontabs(beat: Any) -> None:
    zone = "America/New_York"
    days = crontab(minute="*/15", hour="8, 20", day_of_week="mon-fri", timezone=zone)
    periodic("days", crontab_id=days, args="[]", kwargs='{"key": "x"}', queue="mail")
    periodic("often", interval_id=interval(2, "seconds"), queue="")
    periodic("off", interval_id=interval(3, "days"), enabled=False)
    assert beat() == ["Imported days.", "Imported often.", "Imported off, paused.", "Imported 3 schedules."]
    assert plans() == {
        "days": (call_again.name, "*/15 8,20 * * mon-fri", zone, "[]", '{"key":"x"}', "mail", False),
        "often": (call_again.name, "every 2 s", "UTC", '["x"]', "{}", None, False),
        "off": (call_again.name, "every 259200 s", "UTC", '["x"]', "{}", None, True),
    }


def test_a_foreman_runs_them(beat: Any, site: Site) -> None:
    periodic("often", echo.name, interval_id=interval(1, "seconds"))
    beat()
    site.foreman()
    wait_until(lambda: site.ledger.count("echo", "(('x',),{})"))


def test_it_can_be_repeated(beat: Any) -> None:
    periodic("first")
    beat()
    schedules.change("first", queue="mail")
    periodic("second")
    periodic(nap.name, nap.name)
    assert beat()[:2] == ["Left first: there is a schedule of this name.", "Imported second."]
    assert plans()["first"][5] == "mail", "what users have changed stays"
    assert beat()[-1] == "Imported 0 schedules."


def test_a_dry_run_changes_nothing(beat: Any) -> None:
    periodic("first", priority=5)
    periodic("second", "shop.tasks.gone")
    assert beat("--dry-run") == [
        "Would import first.",
        "    Not imported: priority=5: use @task(priority=...), from -100 to 100.",
        "Left second (shop.tasks.gone): there is no such task: declare it, perhaps with @task(name=...), and "
        "import again.",
        "Would import 1 schedules.",
    ]
    assert plans() == {} and Task.objects.count() == 0


def test_what_a_schedule_does_not_have_is_listed(beat: Any) -> None:
    periodic("x", expires=LATER, expire_seconds=60, exchange="e", routing_key="r", headers='{"a": 1}')
    assert beat()[1:-1] == [
        "    Not imported: it ends at 2100-01-01 00:00:00+00:00: remove it then.",
        "    Not imported: expire_seconds=60: use @task(expires=60).",
        "    Not imported: exchange and routing_key: use a queue.",
        "    Not imported: headers: use keyword arguments.",
    ]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"task": "shop.tasks.gone"}, "there is no such task: declare it"),
        ({"task": record.name}, "To allow it, use @task(schedulable=True)."),
        ({"args": "[1, 2, 3, 4]"}, "too many positional arguments"),
        ({"args": "[1"}, "its arguments are not JSON: "),
        ({"args": '"x"'}, "has an invalid 'args': 'x'"),
        ({"task": "celery.backend_cleanup"}, "not needed: the Foreman deletes expired results"),
        ({"one_off": True}, "it runs once: enqueue it"),
        ({"one_off": True, "total_run_count": 1}, "it has run, once"),
        ({"start_time": LATER}, "it starts at 2100-01-01 00:00:00+00:00: import it then"),
        ({"expires": datetime(2020, 1, 1, tzinfo=UTC)}, "it ended at "),
        ({"queue": "nowhere"}, "there is no queue 'nowhere'"),
        ({"interval_id": None}, "it has no interval and no crontab"),
    ],
    ids=lambda value: json.dumps(value, default=str) if isinstance(value, dict) else "",
)
def test_what_cannot_be_imported_is_listed(beat: Any, columns: dict[str, Any], reason: str) -> None:
    periodic("x", **columns)
    with override_snappea(QUEUES={"default": {}}):
        told, summary = beat()
    assert told.startswith("Left x (") and reason in told and told.endswith(".")
    assert summary == "Imported 0 schedules." and plans() == {}


def test_other_kinds_of_schedules_are_listed(beat: Any) -> None:
    periodic("sun", solar_id=insert("solarschedule", event="sunrise", latitude=1, longitude=2))
    periodic("clock", clocked_id=insert("clockedschedule", clocked_time=LATER), one_off=True)
    periodic("both", crontab_id=crontab(day_of_month="1-7", day_of_week="mon"))
    periodic("either", crontab_id=crontab(day_of_month="*/2", day_of_week="mon"))
    periodic("around", crontab_id=crontab(hour="22-3"))
    told = beat()
    assert told[0].endswith("there are no schedules by the sun (sunrise): use cron.")
    assert "it runs once, at 2100-01-01 00:00:00+00:00: enqueue it, once: apply_async(" in told[1]
    assert told[2].endswith("cron either: check one in the task.")
    assert told[3] == "Imported either."
    assert told[4].endswith("the hour '22-3' is wrong.")


def test_an_attempt_that_fails_leaves_nothing(beat: Any) -> None:
    periodic("x\x1b[31m", args='{"a": 1}')
    assert r"Left x\x1b[31m (" in beat()[0] and plans() == {}


def test_a_database_without_the_tables(site: Site) -> None:
    with pytest.raises(CommandError, match="'default' has no tables of django-celery-beat: use --database"):
        call_command("snappea", "import-beat")
    with pytest.raises(CommandError, match="There is no database 'nope' in DATABASES"):
        call_command("snappea", "import-beat", "--database", "nope")


def test_tables_of_an_old_version(beat: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE django_celery_beat_periodictask DROP COLUMN expire_seconds")
    with pytest.raises(CommandError, match="Upgrade django-celery-beat and migrate it first: no such column"):
        beat()


def test_with_celery_as_the_engine(beat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snappea.management.beat.uses_celery", lambda: True)
    with pytest.raises(CommandError, match="beat reads its own tables"):
        beat()
