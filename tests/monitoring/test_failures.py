"""Failures in groups: when, how often, and a sample."""

from datetime import timedelta
from typing import Any

from django.utils import timezone

from snappea.models import Task
from snappea.monitoring import failures, inspect
from tests.site import Site


def failed(exception: str, hours: float, **columns: Any) -> Task:
    moment = timezone.now() - timedelta(hours=hours)
    given = {"task_name": "shop.charge", "place": "a.py:1 in f", "error": f"Traceback ...\n{exception}: no"}
    return Task.objects.create(
        status="failed", exception=exception, finished_at=moment, **{**given, **columns}
    )


def test_a_group_has_its_times_its_hours_and_its_newest_error(site: Site) -> None:
    for hours in (0, 0, 3, 23.5, 100):
        failed("KeyError", hours)
    newest = failed("KeyError", -0.001, error="Traceback ...\nKeyError: 'customer'")
    failed("ValueError", 30, is_sensitive=True)
    keys, values = failures.groups(inspect.failures())
    assert (keys.exception, keys.place, keys.task_name, keys.number) == (
        "KeyError",
        "a.py:1 in f",
        "shop.charge",
        6,
    )
    assert keys.first and keys.last and keys.last == newest.finished_at
    assert keys.last - keys.first > timedelta(hours=99)
    assert len(keys.hours) == failures.HOURS and 4 <= sum(keys.hours) <= 5 and keys.hours[-1] in (0, 1, 2, 3)
    assert keys.sample == "KeyError: 'customer'"
    assert values.number == 1 and sum(values.hours) == 0 and values.sample == "", "it is sensitive"


def test_groups_are_sorted_by_when_they_last_failed(site: Site) -> None:
    for exception, hours in (("A", 5), ("A", 6), ("B", 1), ("C", 3)):
        failed(exception, hours)
    found = inspect.failures()
    assert found[0].exception == "A"
    assert [group.exception for group in failures.by_last(found)] == ["B", "C", "A"]
    assert failures.groups([]) == [] == failures.by_last([])


def test_a_time_written_by_hand_is_no_error(site: Site) -> None:
    failed("KeyError", 1)
    site.sql("UPDATE snappea_task SET finished_at = 'yesterday'")
    (group,) = failures.groups(inspect.failures())
    assert group.last is None and group.number == 1


def test_no_number_of_failures_takes_a_scan(site: Site) -> None:
    for columns in (failures._DETAILS, failures._LAST):
        text = failures._statement(columns, 3)
        steps = [row[3] for row in site.sql(f"EXPLAIN QUERY PLAN {text}", *["1"] * text.count("?"))]
        for step in steps:
            assert "snappea_task" not in step or "SEARCH snappea_task USING" in step, step
            assert "snappea_task" not in step or "INDEX snappea_failures (exception=? AND place=?" in step, (
                step
            )
