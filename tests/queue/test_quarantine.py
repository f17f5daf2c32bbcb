"""Rows with invalid values, written by hand: these, and only these, are set aside with a reason."""

import sqlite3
import time
from functools import partial
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError

from snappea.foreman.statistics import Stats
from snappea.models import Stat, Task
from snappea.queue import operations
from snappea.queue.clock import now
from snappea.queue.database import connect, transact
from snappea.queue.quarantine import Quarantine, quarantined
from snappea.queue.records import Claim, Outcome
from tests.playground.lifecycle import two_at_a_time
from tests.playground.tasks import record
from tests.site import Site, wait_until

#: Values that would end a round, or a Foreman's start, if the code were careless.
POISON: list[tuple[str, Any]] = [
    ("expires_at", 1),
    ("run_after", b"\xff"),
    ("claims", 2**63 - 1),
    ("claims", "many"),
    ("attempts", b"x"),
    ("lane_limit", "two"),
    ("lane_interval", "often"),
    ("lane", b"\xff"),
    ("result_ttl", b"x"),
    ("result_ttl", "long"),
    ("parent_id", "somebody"),
    ("queue", b"x"),
]


def poison(site: Site, column: str, value: Any, status: str = "ready") -> int:
    """Enqueue a task, and write values to its row."""
    number: int | None = two_at_a_time.delay("poisoned", 0).id
    assert number
    site.sql(f"UPDATE snappea_task SET status = ?, {column} = ? WHERE id = ?", status, value, number)
    return number


def test_a_row_that_ends_a_round_is_set_aside(site: Site) -> None:
    foreman = site.foreman()
    for column, value in POISON:
        number = poison(site, column, value)
        key = f"next-{number}"
        record.delay(key)
        wait_until(partial(site.ledger.count, "end", key), foreman.output())
        site.wait_until_empty()
        for row in Task.objects.all():
            assert (row.pk, row.status, row.exception) == (number, "failed", "UnusableRow")
            assert column in row.error and "invalid values" in row.error
        site.sql("DELETE FROM snappea_task")
    assert foreman.stop() == 0


def test_a_foreman_starts_all_the_same(site: Site) -> None:
    statuses = ["ready", "running", "scheduled", "successful"]
    poisoned = [(poison(site, "attempts", b"x", s), poison(site, "expires_at", 1, s)) for s in statuses]
    foreman = site.foreman()
    record.delay("next")
    wait_until(lambda: site.ledger.count("end", "next"), foreman.output())
    for status, (number, other) in zip(statuses, poisoned, strict=True):
        kept = "successful" if status == "successful" else "failed"
        wait_until(lambda: Task.objects.get(pk=other).status == kept)  # noqa: B023
        assert "expires_at is 1" in Task.objects.get(pk=other).error
        assert Task.objects.get(pk=number).status == kept
    assert foreman.stop() == 0


def test_what_may_be_there_is_left_alone(site: Site) -> None:
    record.delay_many((number,) for number in range(3))
    record.apply_async(("later",), countdown=60, expires=90, result_ttl=5)
    two_at_a_time.delay("x", 0)
    Task.objects.create(task_name="x", args=[1], status="failed", error="\ud7ff", errors="\n", result=[1])
    site.sql("INSERT INTO snappea_task (task_name, enqueued_at) VALUES ('by hand', datetime('now'))")
    site.sql("UPDATE snappea_task SET run_after = strftime('%Y-%m-%d %H:%M:%f') WHERE id = 2")
    site.sql("UPDATE snappea_task SET status = 'unheard of' WHERE id = 3")
    before = site.sql("SELECT * FROM snappea_task")
    quarantine = Quarantine()
    quarantine.note(ValueError())
    assert not quarantine.inspect_rows(connect())
    assert site.sql("SELECT * FROM snappea_task") == before


def test_only_what_a_row_may_be_to_blame_for_has_the_rows_looked_at(site: Site) -> None:
    poison(site, "expires_at", 1)
    error: Exception
    busy = sqlite3.OperationalError("database is locked")
    busy.sqlite_errorcode = 5
    for error in (OSError(), RuntimeError(), busy, KeyboardInterrupt()):  # type: ignore[assignment]
        quarantine = Quarantine()
        quarantine.note(error)
        assert not quarantine.inspect_rows(connect())
    wrapped = OperationalError("Could not decode to UTF-8 column")
    wrapped.__cause__ = sqlite3.OperationalError("Could not decode to UTF-8 column")
    quarantine.note(wrapped)
    assert quarantine.inspect_rows(connect()) and not quarantine.inspect_rows(connect())


def test_a_kept_row_stays_what_it_is_and_can_be_read(site: Site) -> None:
    number = poison(site, "started_at", "2026-13-45 99:99:99", "interrupted")
    row = quarantined(lambda: Task.objects.get(pk=number))
    assert (row.status, row.started_at) == ("interrupted", None)
    assert "started_at is '2026-13-45 99:99:99'" in row.error
    with pytest.raises(ValueError, match="of its own"):
        quarantined(lambda: int("of its own"))


def test_arguments_are_neither_lost_nor_made_up(site: Site) -> None:
    """Nor logged, since they may be sensitive."""
    number = poison(site, "args", b'["\xff"]')
    site.sql("UPDATE snappea_task SET args = CAST(args AS TEXT) WHERE id = ?", number)
    row = quarantined(lambda: Task.objects.get(pk=number))
    assert row.args == '["\\xff"]' and "xff" in row.error
    site.foreman()
    Task.objects.filter(pk=number).update(status="ready")
    record.delay("next")
    wait_until(lambda: site.ledger.count("end", "next"))
    wait_until(lambda: "UnreadableArguments" in Task.objects.get(pk=number).error)


@pytest.mark.parametrize(
    ("column", "value"), [("next_run", 5), ("next_run", "x"), ("last_run", 7), ("args", b"x")]
)
def test_a_schedule_is_put_right(site: Site, settings: Any, column: str, value: Any) -> None:
    site.settings["SCHEDULES"] = [{"task": record.name, "every": 3600, "args": ["tick"]}]
    settings.SNAPPEA = dict(site.settings)
    assert site.foreman().stop() == 0
    site.sql(f"UPDATE snappea_schedule SET last_run = next_run, {column} = ?", value)
    site.foreman()  # at its start, and while it works
    for _ in range(2):
        site.sql(f"UPDATE snappea_schedule SET {column} = ?", value)
        key = f"next-{time.monotonic()}"
        record.delay(key)
        wait_until(partial(site.ledger.count, "end", key), site.processes[-1].output())
    call_command("snappea", "status")
    call_command("snappea", "schedules")


def test_what_is_only_looked_at_is_put_right(site: Site, capsys: Any) -> None:
    operations.pause("mail")
    site.sql("UPDATE snappea_pause SET since = 'since long ago'")
    site.sql(
        "INSERT INTO snappea_stat (minute, task_name, done, failed, retried, cancelled, expired, wait_sum,"
        " wait_max, run_sum, run_max, run_times) VALUES ('2026', x'ff', 'x', 0, 0, 0, 0, 0, 0, 0, 0, '[]')"
    )
    call_command("snappea", "status")
    assert "paused" in capsys.readouterr().out


def test_a_name_that_is_no_text_counts_among_the_others(site: Site) -> None:
    stats = Stats(60)
    for name in ("x", b"x", "y"):
        stats.count([Outcome(Claim(0, 1, 1, name, "[]", "{}", enqueued_at=now()), 0.1)], now())  # type: ignore[arg-type]
    with transact(connect()) as db:
        stats.write(db, at_once=True)
    assert set(Stat.objects.values_list("task_name", flat=True)) == {"x", "y", "(others)", ""}
