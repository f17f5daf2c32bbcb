"""`snappea move`: everything in the queue gets to another database, once, whatever is killed."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections, models

from snappea.models import Batch, Handover, Presence, Status, Task
from snappea.queue import move, operations
from snappea.queue.move import queue_in
from tests.playground.gated import alone, mail, only_waiting
from tests.playground.tasks import nap, record
from tests.servers import Postgres
from tests.site import PostgresSite, Site, wait_until

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
MOVED = [model for model in apps.get_app_config("snappea").get_models() if not model._meta.proxy]
MOVED.remove(Presence)
Sql = Callable[[str], list[tuple[Any, ...]]]


class Other:
    """Another database, to which the queue can move."""

    def __init__(self, directory: Path, server: Postgres | None) -> None:
        self._file, self._server = directory / "other.sqlite3", server
        self.settings: dict[str, Any] = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(self._file)}
        if server:
            server.create("other")
            self.settings = server.settings("other")

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement there, outside of Django."""
        if self._server:
            with self._server.connect("other") as connection:
                done = connection.execute(statement)
                return done.fetchall() if done.description else []
        with closing(sqlite3.connect(self._file, isolation_level=None)) as file:
            return file.execute(statement).fetchall()

    def drop(self) -> None:
        """Delete it."""
        if self._server:
            self._server.drop("other")


@pytest.fixture
def other(request: pytest.FixtureRequest, site: Site, tmp_path: Path) -> Iterator[Other]:
    """Return the database "other", also for this process: of another kind, or of the "same" one."""
    is_postgres = isinstance(site, PostgresSite) == (getattr(request, "param", "") == "same")
    other = Other(tmp_path, request.getfixturevalue("postgres") if is_postgres else None)
    site.variables["SNAPPEA_TEST_OTHER"] = json.dumps(other.settings)
    before = connections.settings
    connections.settings = connections.configure_settings({**before, "other": other.settings})
    yield other
    site.end()
    connections["other"].close()
    del connections["other"]
    connections.settings = before
    other.drop()


def move_to(end: str, *arguments: str) -> None:
    """Move the queue, in this process."""
    call_command("snappea", "move", "--to", end, *arguments)


def back() -> None:
    """Move it back."""
    move_to("snappea", "--from", "other")


def content(sql: Sql, with_ids: bool = False) -> dict[str, list[Any]]:
    """Return the rows of each table that moves, without the marks."""

    def plain(value: Any) -> Any:
        if isinstance(value, datetime):
            return str(value.astimezone(UTC).replace(tzinfo=None))
        return int(value) if isinstance(value, bool) else value

    found = {}
    for model in MOVED:
        keeps_ids = model in (Task, Batch)
        names = [f.column for f in model._meta.concrete_fields if keeps_ids or f.column != "id"]
        columns = ", ".join(f'"{name}"' for name in names)
        marks = "WHERE key NOT IN ('moved', 'moving')" if model._meta.db_table == "snappea_handover" else ""
        rows = sql(f"SELECT {columns} FROM {model._meta.db_table} {marks}")
        found[model._meta.db_table] = sorted([*map(plain, row)] for row in rows)
    return found


def value_of(field: "models.Field[Any, Any]", number: int) -> Any:
    """Return a value that differs from the default, and from row to row."""
    if isinstance(field, models.DateTimeField):
        return NOON + timedelta(minutes=number, microseconds=number % 2)
    if isinstance(field, models.BooleanField):
        return bool(number % 2)
    if isinstance(field, models.FloatField):
        return number + 0.1
    if isinstance(field, models.IntegerField):
        return number
    return f'"\\é\t\n{number}' if number % 2 else f"{number}"


def fill(rows: int) -> None:
    """Write rows with all columns into all tables."""
    for model in MOVED:
        for number in range(1, rows + 1):
            fields = [f for f in model._meta.concrete_fields if not isinstance(f, models.AutoField)]
            values = {field.attname: value_of(field, number) for field in fields}
            if model is Task:
                kept = [status for status in Status.values if status != "running"]
                values |= {"status": kept[number % len(kept)], "gate": number % 4}
            values |= {f.attname: None for f in fields if f.null and number % 3 == 0}
            model(**values).save(force_insert=True, using="snappea")


both_kinds = pytest.mark.parametrize("other", ["another", "same"], indirect=True)


@both_kinds
@pytest.mark.on_both
def test_all_of_all_tables_moves_there_and_back(site: Site, other: Other, monkeypatch: Any) -> None:
    monkeypatch.setattr(move, "CHUNK", 3)
    fill(8)
    before = content(site.sql)
    assert all(len(rows) == 8 for rows in before.values())
    move_to("other")
    assert content(other.sql) == before
    assert not any(content(site.sql).values())
    back()
    assert content(site.sql) == before
    assert not any(content(other.sql).values())


def test_all_tables_are_known() -> None:
    """Add a new table here once it moves as it should, and a new column that mentions ids."""
    assert {model.__name__ for model in MOVED} == {
        "Task", "Batch", "UniqueUntil", "Schedule", "ScheduleRun", "Pause", "Opening", "Limit", "Handover",
        "Stat", "Total",
    }  # fmt: skip
    with_ids = {
        field.name for model in MOVED for field in model._meta.concrete_fields if field.name.endswith("_id")
    }
    assert with_ids == {
        "parent_id", "batch_id", "foreman_id", "success_id", "failure_id", "complete_id", "task_id",
        "last_task_id",
    }  # fmt: skip


@both_kinds
@pytest.mark.needs("initdb")
def test_a_kill_at_any_line(site: Site, other: Other) -> None:
    fill(6)
    connections.close_all()
    process = site.program("from tests.playground import moving; moving.main()")
    assert process.wait() == 0, process.output()
    kills = json.loads(process.output().splitlines()[-1])["kills"]
    assert kills > 10


@pytest.mark.on_both
def test_a_foreman_runs_what_was_moved(site: Site, other: Other, settings: Any) -> None:
    site.settings["FOREMAN_TIMEOUT"] = 1
    settings.SNAPPEA = dict(site.settings)
    foreman = site.foreman(NUM_WORKERS=2)
    nap.delay("once", 60)
    alone.delay("first", "", 60)
    wait_until(lambda: len(site.ledger.keys("start")) == 2)
    alone.delay("second")
    operations.pause("mail")
    mail.delay("held")
    ids = [record.delay(f"k-{number}").id for number in range(20)]
    with pytest.raises(CommandError, match=r"(?i)Foreman is at work.*Stop"):
        move_to("other")
    foreman.kill()
    wait_until(lambda: arrives("other"))
    assert dict(other.sql("SELECT status, count(*) FROM snappea_task GROUP BY status")) == {
        "interrupted": 2,
        "ready": 22,
    }
    refused = site.manage("runsnappea")
    assert refused.wait() == 1 and "or has moved" in refused.output()
    late = record.delay("late").id  # by a process that has not heard of it
    foreman = site.foreman(DATABASE="other")
    wait_until(lambda: site.ledger.count("end", "second") and site.ledger.count("end", "k-19"))
    with pytest.raises(CommandError, match=r"(?i)Foreman is at work"):
        move_to("other")
    foreman.stop()
    move_to("other")
    assert set(ids) < {late, *ids} and other.sql("SELECT max(id) FROM snappea_task") == [(late,)]
    site.foreman(DATABASE="other")
    wait_until(lambda: site.ledger.count("end", "late"))
    assert set(site.ledger.keys("start").values()) == {1} and not site.ledger.count("start", "held")
    with queue_in("other"):
        assert max(record.delay(f"new-{number}").id for number in range(2)) > late + move.ROOM // 2


def arrives(end: str) -> bool:
    """Move, and tell whether all has arrived."""
    try:
        move_to(end)
    except CommandError as error:
        assert "died" in str(error)
        return False
    return True


def test_a_twin_that_waits_there_comes_first(site: Site, other: Other) -> None:
    only_waiting.delay("a")
    move_to("other")
    twin, free = only_waiting.delay("a").id, record.delay("b").id
    with pytest.raises(CommandError, match="Left 1 tasks"):
        move_to("other")
    assert site.sql("SELECT id FROM snappea_task") == [(twin,)]
    other.sql("DELETE FROM snappea_task WHERE unique_key IS NOT NULL")  # it has run
    move_to("other")
    assert other.sql("SELECT id FROM snappea_task ORDER BY id") == [(twin,), (free,)]


@pytest.mark.on_both
def test_refusals(site: Site, other: Other, capsys: Any) -> None:
    record.delay("a")
    for arguments, why in {
        ("snappea",): "Name the database to move from",
        ("nowhere",): "no database 'nowhere' in DATABASES",
        ("other", "--from", "nowhere"): "no database 'nowhere' in DATABASES",
        ("snappea", "--from", "other"): "is not migrated|does not exist",
    }.items():
        with pytest.raises(CommandError, match=why):
            move_to(*arguments)
    move_to("other", "--dry-run")
    assert "Would move 1 rows of snappea_task." in capsys.readouterr().out
    assert site.counts() == {"ready": 1}
    move_to("other")
    with queue_in("other"):
        record.delay("b")
    with site_unmarked(site), pytest.raises(CommandError, match="tasks of its own"):
        move_to("other")
    with (
        site_unmarked(site, "moved", "third"),
        pytest.raises(CommandError, match="from 'snappea' to 'third'"),
    ):
        move_to("other")
    with (
        site_unmarked(site, "moving", "third"),
        pytest.raises(CommandError, match="from 'third' to 'snappea'"),
    ):
        back()
    assert site.counts() == {} and other.sql("SELECT count(*) FROM snappea_task") == [(2,)]


@contextmanager
def site_unmarked(site: Site, key: str = "", name: str = "") -> Iterator[None]:
    """Let the source have another mark, or none."""
    site.sql("DELETE FROM snappea_handover")
    if key:
        Handover.objects.create(key=key, task_name=name, call="")
    yield
    site.sql("DELETE FROM snappea_handover")
    Handover.objects.create(key="moved", task_name="other", call="")


def test_a_row_that_was_written_by_hand_is_set_aside(site: Site, other: Other) -> None:
    task_id = record.delay("a").id
    site.sql("UPDATE snappea_task SET priority = 'high' WHERE id = ?", task_id)
    move_to("other")
    assert other.sql("SELECT id, status FROM snappea_task") == [(task_id, "failed")]
