"""current_task: what a task can ask about itself, and its progress."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from snappea import current_task
from snappea.errors import NoCurrentTask
from snappea.models import Task
from snappea.tasks.context import unwritten_progress
from tests.playground.lifecycle import (
    fail_until,
    have_an_async_child,
    have_children,
    in_a_thread,
    note_times,
    report,
    report_and_end,
    report_for_long,
    who_am_i,
    who_am_i_async,
)
from tests.site import Site, wait_until

ASK: dict[str, Callable[[], Any]] = {
    "id": lambda: current_task.id,
    "name": lambda: current_task.name,
    "attempt": lambda: current_task.attempt,
    "queue": lambda: current_task.queue,
    "enqueued_at": lambda: current_task.enqueued_at,
    "parent_id": lambda: current_task.parent_id,
    "batch_id": lambda: current_task.batch_id,
    "deadline": lambda: current_task.deadline,
    "retry": lambda: current_task.retry(),
    "progress": lambda: current_task.progress(1, 2),
}


@pytest.mark.parametrize("what", ASK)
def test_where_no_task_runs(what: str) -> None:
    assert not current_task
    with pytest.raises(NoCurrentTask, match="No task is running here"):
        ASK[what]()
    assert isinstance(NoCurrentTask(), RuntimeError)


def test_nothing_of_it_was_forgotten_here() -> None:
    assert {name for name in dir(current_task) if not name.startswith("_")} == set(ASK)


def test_a_function_that_is_called_is_no_task(site: Site) -> None:
    with pytest.raises(NoCurrentTask):
        who_am_i()


def test_inside_a_task(site: Site) -> None:
    site.foreman()
    who_am_i.apply_async(queue="mail")
    wait_until(lambda: site.ledger.lines())
    assert site.ledger.lines() == [["task", "1", who_am_i.name, "1", "mail", "None"]]


def test_inside_a_coroutine(site: Site) -> None:
    site.foreman()
    who_am_i_async.delay()
    wait_until(lambda: site.ledger.lines())
    assert site.ledger.lines() == [["async", "1", "1", who_am_i_async.name, "1", "mail"]]


def test_the_times(site: Site) -> None:
    note_times.delay()
    enqueued_at = Task.objects.get().enqueued_at
    site.foreman()
    wait_until(lambda: site.ledger.lines())
    ((word, noted, deadline, is_there, parent),) = site.ledger.lines()
    assert datetime.fromisoformat(noted) == enqueued_at
    assert (word, deadline, is_there, parent) == ("times", "None", "True", "None")


def test_attempts_count(site: Site) -> None:
    site.foreman()
    fail_until.delay("x", 3)
    wait_until(lambda: site.ledger.count("end", "x"))
    assert [line[-1] for line in site.ledger.lines() if line[0] == "start"] == ["1", "2", "3"]


def test_the_next_task_of_a_worker_has_a_context_of_its_own(site: Site) -> None:
    site.foreman(NUM_WORKERS=1)
    first = str(who_am_i.delay(1).id)  # it enqueues one more, with any later id
    fail_until.delay("x", 2)
    last = str(who_am_i.delay().id)
    wait_until(lambda: site.ledger.count("end", "x") and len(site.ledger.lines()) == 6)
    noted = {line[1]: line[5] for line in site.ledger.lines() if line[0] == "task"}
    assert len(noted) == 3 and noted.pop(first) == noted.pop(last) == "None"
    assert set(noted.values()) == {first}


def test_a_thread_of_its_own_knows_nothing_of_it(site: Site) -> None:
    site.foreman()
    in_a_thread.delay()
    wait_until(lambda: site.ledger.count("thread", False))


# parents


def test_grandchildren(site: Site) -> None:
    site.foreman()
    who_am_i.delay(3)
    wait_until(lambda: len(site.ledger.lines()) == 4)
    lines = sorted(site.ledger.lines(), key=lambda line: int(line[1]))
    assert [line[5] for line in lines] == ["None", *(line[1] for line in lines[:-1])]


def test_each_way_to_enqueue_names_the_parent(site: Site) -> None:
    site.foreman()
    assert have_children.delay().id == 1
    wait_until(lambda: len(site.ledger.lines()) == 6)
    assert [line[4] for line in site.ledger.lines() if line[0] == "times"] == ["1"] * 5
    note_times.delay()
    wait_until(lambda: len(site.ledger.lines()) == 7)
    assert site.ledger.lines()[-1][4] == "None", "no task enqueued this one"


def test_a_coroutine_may_ask_for_its_parent(site: Site) -> None:
    site.foreman()
    have_an_async_child.delay()
    wait_until(lambda: site.ledger.lines() or "failed" in site.counts())
    assert site.ledger.lines()[0][:2] == ["row", "1"]


# progress


def test_progress_is_seen_while_it_runs(site: Site, wakeups: str) -> None:
    site.foreman(NUM_WORKERS=1)
    result = report.delay(1000, str(site.directory / "go"))

    def has_last_word() -> bool:
        row = result.refresh()
        return row is not None and row.progress_note == "step 1000"

    wait_until(has_last_word)
    row = Task.objects.get()
    assert (row.status, row.progress_done, row.progress_total) == ("running", 1000, 1000)
    (site.directory / "go").touch()
    wait_until(lambda: site.counts() == {})


def test_progress_is_written_at_most_once_a_second(site: Site) -> None:
    site.foreman()
    before = time.monotonic()
    report_for_long.delay(str(site.directory / "go"))
    seen: dict[float | None, float] = {}

    def look() -> bool:
        seen.setdefault(Task.objects.values_list("progress_done", flat=True).get(), time.monotonic())
        return len(seen) > 4

    wait_until(look)
    (site.directory / "go").touch()
    moments = [moment for done, moment in seen.items() if done is not None]
    assert list(seen)[1:] == sorted(done for done in seen if done is not None)
    assert moments[-1] - before >= 2.5, "three writes after the first one"


@pytest.mark.parametrize("fails", [False, True])
def test_the_last_word_of_what_is_kept_counts(site: Site, fails: bool) -> None:
    site.foreman()
    report_and_end.delay(fails)
    status = "failed" if fails else "successful"
    wait_until(lambda: site.counts() == {status: 1})
    row = Task.objects.get()
    assert (row.progress_done, row.progress_total, row.progress_note) == (10, 10, "step 10")


def test_progress_of_what_was_not_kept_is_forgotten(site: Site) -> None:
    """The next task is not delayed, and nothing is left in memory."""
    (site.directory / "go").touch()
    foreman = site.foreman()
    for _ in range(5):
        report.delay(100, str(site.directory / "go"))
    wait_until(lambda: site.ledger.count("start", "report") == 5 and site.counts() == {})
    assert foreman.stop() == 0 and "ERROR" not in foreman.output()


# TASK_ALWAYS_EAGER


def test_in_an_eager_task(site: Site, settings: Any) -> None:
    settings.SNAPPEA = {"TASK_ALWAYS_EAGER": True}
    who_am_i.delay(1)
    who_am_i_async.delay()
    note_times.delay()
    lines = site.ledger.lines()
    assert lines[0] == lines[1] == ["task", "0", who_am_i.name, "1", "default", "None"]
    assert lines[2] == ["async", "0", "0", who_am_i_async.name, "1", "mail"]
    assert lines[3][0] == "times" and lines[3][2:] == ["None", "True", "None"]
    assert datetime.fromisoformat(lines[3][1]).tzinfo is not None
    assert not current_task


def test_progress_of_an_eager_task_goes_nowhere(site: Site, settings: Any) -> None:
    settings.SNAPPEA = {"TASK_ALWAYS_EAGER": True}
    report_and_end.delay(False)
    assert not unwritten_progress and Task.objects.count() == 0


def test_an_eager_task_that_raises_leaves_no_context(site: Site, settings: Any) -> None:
    settings.SNAPPEA = {"TASK_ALWAYS_EAGER": True}
    with pytest.raises(ValueError, match="not yet: 1"):
        fail_until.delay("x", 2)
    assert not current_task
