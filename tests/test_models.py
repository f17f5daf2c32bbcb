"""The Task: its defaults, states, moves and indexes."""

import pickle
import re
from typing import Any

import pytest
from django.core.management import call_command

from snappea import models
from snappea.models import LISTS, Status, Task
from snappea.queue import statements
from tests.site import Site


def test_the_states_and_what_the_admin_calls_them() -> None:
    assert {status.value: str(status.label) for status in Status} == {
        "scheduled": "Future",
        "ready": "Pending",
        "running": "Active",
        "failed": "Failed",
        "interrupted": "Dirty",
        "successful": "Finished",
        "cancelled": "Cancelled",
    }


def test_the_lists_of_the_admin_are_models_to_import_and_to_pickle() -> None:
    names = [
        "FailedTask",
        "DirtyTask",
        "ActiveTask",
        "PendingTask",
        "FutureTask",
        "FinishedTask",
        "CancelledTask",
        "Dashboard",
    ]
    assert [getattr(models, name)._meta.object_name for name in names] == names
    query = models.Dashboard.objects.filter(status="failed").query
    assert str(pickle.loads(pickle.dumps(query))) == str(query)
    assert pickle.loads(pickle.dumps(LISTS[Status.FAILED])) is LISTS[Status.FAILED]


def test_a_row_by_orm_and_a_row_by_sql_have_the_same_defaults(site: Site) -> None:
    by_orm = Task.objects.create(task_name="x")
    site.sql("INSERT INTO snappea_task (task_name, enqueued_at) VALUES ('x', '2026-01-01 00:00:00')")
    rows = list(Task.objects.order_by("id").values())
    for row in rows:
        del row["id"], row["enqueued_at"]
    assert rows[0] == rows[1]
    assert (by_orm.status, by_orm.queue, by_orm.args, str(by_orm)) == ("ready", "default", "[]", "x #1")


@pytest.mark.parametrize("args", [[42], "[42]"])
def test_arguments_may_be_given_as_data_or_as_json(site: Site, args: Any) -> None:
    Task.objects.create(task_name="x", args=args, kwargs={"a": None})
    assert Task.objects.values_list("args", "kwargs").get() == ("[42]", '{"a": null}')


def test_ids_are_never_used_again(site: Site) -> None:
    """The logbook relies on it, and so does each process that keeps an id."""
    first = Task.objects.create(task_name="x")
    first_id = first.pk
    first.delete()
    assert Task.objects.create(task_name="x").pk > first_id


ROUND = {name: text for name, text in vars(statements).items() if name.isupper() and isinstance(text, str)}


#: For PostgreSQL only, and what is rare or has few rows to look at.
EXEMPT = {"INSERT", "INSERT_MORE", "INSERT_MANY", "RUNNING", "SET_ASIDE", "CLAIM_ADDRESSED"}


@pytest.mark.parametrize("name", sorted(ROUND.keys() - EXEMPT))
def test_no_statement_scans_or_sorts_the_table(site: Site, name: str) -> None:
    """So that a large backlog does not slow down claims."""
    plan = site.sql(f"EXPLAIN QUERY PLAN {ROUND[name]}", *["1"] * ROUND[name].count("?"))
    for step in (row[3] for row in plan):
        assert "TEMP B-TREE" not in step, step
        assert not re.match("(SCAN|SEARCH) (snappea_task|other)$", step) or "INDEX snappea_" in step, step


def test_no_parameter_is_numbered() -> None:
    """Python 3.14 treats ?1 as a name, and refuses a tuple for it."""
    assert not [name for name, text in ROUND.items() if re.search(r"\?\d", text)]


def test_the_migration_is_up_to_date(site: Site) -> None:
    call_command("makemigrations", "snappea", check=True, dry_run=True, verbosity=0)


def test_the_indexes_of_tasks_are_partial(site: Site) -> None:
    """So that a task pays only for the indexes that it needs."""
    found = site.sql("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'snappea_task'")
    assert found
    assert not [name for name, sql in found if " WHERE " not in sql]
