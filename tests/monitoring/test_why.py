"""Why a task waits, in one sentence."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from snappea.models import Task
from snappea.monitoring import why
from snappea.monitoring.why import MOST, why_it_waits
from snappea.queue import operations
from tests.admin.test_lists import note_running, put
from tests.playground.tasks import record
from tests.site import Site


def waits(row: Task) -> str:
    row.refresh_from_db()
    return found.text if (found := why_it_waits(row)) else ""


@pytest.mark.on_both
def test_why_a_task_waits(site: Site) -> None:
    row = put("ready")
    assert waits(row) == "No Foreman runs." and not waits(put("failed"))
    site.foreman("--queues", "mail")
    assert waits(row).startswith("It is the next of its queue")
    put("ready", priority=1)
    assert waits(row) == "1 task of its queue is before it."
    put("ready", priority=2), put("ready", priority=-1)
    assert waits(row) == "2 tasks of its queue are before it."
    operations.pause("default")
    assert waits(row).startswith("Its queue has been paused since ")
    later = put("scheduled", run_after=timezone.now() + timedelta(hours=2))
    assert waits(later).startswith("It is due in ")


def test_why_tasks_with_limits_wait(site: Site, settings: Any) -> None:
    site.foreman("--queues", "mail")
    full = {"lane": "a.group", "lane_limit": 2}
    running = [put("running", claims=1, **full) for _ in range(2)]
    row = put("ready", **full)
    assert waits(row) == "Its concurrency group is full: it may run 2 at a time."
    found = why_it_waits(row)
    assert found and sorted(found.ids) == [one.pk for one in running]
    limited = put("ready", lane="rated", lane_interval=10)
    assert waits(limited) == "Its rate limit allows one start every 10 s."
    bursts = put("ready", lane="rated", lane_interval=10, lane_burst=5)
    assert waits(bursts) == "Its rate limit allows one start every 10 s, and 5 at once after a pause."
    by_key = {"lane": f"{bursts.task_name}:eu", "lane_interval": 10}
    key = "The limit is that of the key eu."
    assert waits(put("ready", **by_key)) == f"Its rate limit allows one start every 10 s. {key}"
    assert waits(put("ready", **by_key, is_sensitive=True)) == "Its rate limit allows one start every 10 s."
    settings.SNAPPEA = {**settings.SNAPPEA, "QUEUES": {"default": {"max_concurrency": 2}}}
    note_running(*running)
    assert waits(put("ready")) == "Its queue may run 2 at a time."


def test_many_tasks_before_one_are_counted_by_an_index(site: Site) -> None:
    site.foreman("--queues", "mail")
    for number in range(MOST + 1):
        record.delay(number)
    row = put("ready")
    assert waits(row) == "1,000+ tasks of its queue are before it."
    of = (False, "default", 0)
    plan = site.sql(f"EXPLAIN QUERY PLAN {why._BEFORE}", *of, MOST, *of, row.pk, MOST)
    steps = [step[3] for step in plan if "snappea_task" in step[3]]
    assert len(steps) == 2 and all("snappea_ready" in step and "queue=?" in step for step in steps)
    (step,) = [step[3] for step in site.sql(f"EXPLAIN QUERY PLAN {why._OF_GROUP}", "x", 1)]
    assert "snappea_lane" in step
