"""Finished tasks that are kept without results, and tags."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils.timezone import now

from snappea import task
from snappea.admin.search import Search
from snappea.errors import ResultNotKept, TaskDefinitionError
from snappea.models import Task
from snappea.queue import operations, store
from snappea.queue.database import connect, raw
from snappea.queue.statements import KEEP_WITHOUT_RESULT
from snappea.tasks.function import registry
from tests.playground.lifecycle import add, brief
from tests.playground.tasks import nothing
from tests.site import DEADLINE, Site, wait_until

pytestmark = pytest.mark.on_both
WEEK = timedelta(days=7)


@pytest.fixture
def kept() -> Any:
    @task(name="kept", keep=WEEK, tags=["mail", "vip"])
    def kept() -> None: ...

    yield kept
    del registry["kept"]


def row(task_id: Any) -> tuple[object, ...]:
    found = Task.objects.get(pk=task_id)
    return found.result_ttl, found.keeps_result


def test_the_row_says_how_long_and_whether_with_a_result(site: Site, kept: Any, settings: Any) -> None:
    assert row(kept.delay().id) == (WEEK.total_seconds(), False)
    assert row(kept.apply_async(keep=60).id) == (60, False)
    assert row(kept.apply_async(keep=0).id) == (None, True)
    assert row(kept.apply_async(result_ttl=60).id) == (WEEK.total_seconds(), True), "the longer of both"
    assert row(nothing.delay().id) == (None, True)
    settings.SNAPPEA = {**settings.SNAPPEA, "KEEP": 100}
    assert row(nothing.delay().id) == (100, False)
    assert row(nothing.apply_async(keep=timedelta(0)).id) == (None, True)
    assert row(add.delay(1, 2).id) == (100, True), "its own result_ttl is shorter"


def test_finished_tasks_stay_without_results(site: Site) -> None:
    """In one statement for many; the row can be requeued, and expires."""
    site.foreman()
    results = [nothing.apply_async(keep=WEEK) for _ in range(50)]
    wait_until(lambda: Task.objects.filter(status="successful").count() == 50)
    for found in Task.objects.all():
        assert (found.result, found.error, found.keeps_result) == (None, "", False)
        assert found.finished_at and found.expires_at == found.finished_at + WEEK
    with pytest.raises(ResultNotKept, match="keeps no result"):
        results[0].get(timeout=DEADLINE)
    assert operations.requeue(Task.objects.filter(pk=results[0].id)) == 1
    wait_until(lambda: Task.objects.get(pk=results[0].id).claims == 2)
    wait_until(lambda: Task.objects.filter(status="successful").count() == 50)
    Task.objects.update(expires_at=now())
    wait_until(lambda: not Task.objects.exists())


def test_a_waiting_call_that_keeps_no_result_is_not_waited_for(site: Site) -> None:
    with pytest.raises(ResultNotKept, match="keeps no result"):
        nothing.apply_async(keep=60).get()


def test_a_result_is_kept_as_long_as_the_row(site: Site) -> None:
    site.foreman()
    result = brief.apply_async(keep=WEEK)
    wait_until(lambda: Task.objects.filter(status="successful").exists())
    found = Task.objects.get(pk=result.id)
    assert found.result is not None and found.expires_at and found.expires_at > now() + timedelta(days=6)


def test_what_had_succeeded_when_the_foreman_died_is_kept(site: Site) -> None:
    nothing.apply_async(keep=60)
    db = raw(connect())
    (claim,) = store.claim(db, "2026-01-01 12:00:00", 1, {"default": 1})
    db.execute(KEEP_WITHOUT_RESULT, ("2026-01-01 12:00:01",) * 2 + ("why", *claim.fence))
    found = Task.objects.get()
    assert (found.status, found.error) == ("successful", "")


def test_tags_find_tasks(site: Site, kept: Any) -> None:
    first, second = kept.delay(), kept.apply_async(tags=["import", "mail"])
    assert Task.objects.get(pk=first.id).tags == " mail vip "
    assert Task.objects.get(pk=second.id).tags == " mail vip import "
    assert {found.pk for found in Search("tag:vip").tasks()} == {first.id, second.id}
    assert [found.pk for found in Search("tag:import").tasks()] == [second.id]
    assert not Search("tag:vi").tasks().exists() and not Search("tag:%").tasks().exists()


@pytest.mark.parametrize("tags", [["a b"], [""], ["a\n"], "vip", [1], ["x" * 51], ["a"] * 21, [None]])
def test_what_is_no_tag_is_refused(site: Site, tags: Any) -> None:
    with pytest.raises(TaskDefinitionError, match="tags="):
        task(name="refused", tags=tags)(lambda: None)
    with pytest.raises((ValueError, TypeError), match="tags="):
        nothing.apply_async(tags=tags)
    assert not Task.objects.exists()


@pytest.mark.parametrize("keep", [-1, float("nan"), 1e10, "7d", True, timedelta(-1)])
def test_what_is_no_time_to_keep_is_refused(site: Site, keep: Any) -> None:
    with pytest.raises(TaskDefinitionError, match="keep="):
        task(name="refused", keep=keep)(lambda: None)
    with pytest.raises((ValueError, TypeError), match="keep="):
        nothing.apply_async(keep=keep)
