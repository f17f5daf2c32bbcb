"""Retries: when, how often, and the record of the attempts."""

import time
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snappea import Retry, current_task
from snappea.errors import NoCurrentTask, TaskDefinitionError
from snappea.models import Task
from snappea.queue import operations, recovery, store
from snappea.queue.database import connect, raw
from snappea.queue.logbook import Entry, Note
from snappea.tasks.options import Options
from tests.playground.lifecycle import (
    as_in_taskq,
    ask_again,
    choosy,
    endless,
    fail_once_told,
    fail_until,
    retry_itself,
    try_later,
)
from tests.site import Site, wait_until


def starts(site: Site) -> list[str]:
    """Return the attempt of each start."""
    return [line[-1] for line in site.ledger.lines() if line[0] == "start"]


def numbers(row: Task) -> list[int]:
    return [line["attempt"] for line in row.attempt_errors()]


# by exceptions


def test_it_is_tried_again_until_it_succeeds(site: Site) -> None:
    foreman = site.foreman()
    fail_until.delay("x", 3)
    wait_until(lambda: site.ledger.count("end", "x"))
    site.wait_until_empty()
    assert starts(site) == ["1", "2", "3"] and site.counts() == {}
    foreman.wait_for_output(r"Retrying .*fail_until #1 in 0\.050 s: ValueError: not yet: 1")
    foreman.wait_for_output(r"Retrying .*fail_until #1 in 0\.050 s: ValueError: not yet: 2")
    foreman.wait_for_output(r"Finished .*fail_until #1 in")


def test_it_fails_once_there_are_no_retries_left(site: Site) -> None:
    foreman = site.foreman()
    fail_until.delay("x", 9)
    wait_until(lambda: site.counts() == {"failed": 1})
    row = Task.objects.get()
    assert (row.attempts, row.claims, row.interruptions) == (3, 3, 0)
    assert "ValueError: not yet: 3" in row.error and "in fail_until\n    raise ValueError" in row.error
    lines = row.attempt_errors()
    assert [(line["attempt"], line["error"]) for line in lines] == [
        (number, f"ValueError: not yet: {number}") for number in (1, 2, 3)
    ]
    moments = [datetime.fromisoformat(line["at"]) for line in lines]
    assert moments == sorted(moments) and row.finished_at == moments[-1].replace(tzinfo=UTC)
    foreman.wait_for_output(r"Failed .*fail_until #1 after [\d.]+ s: ValueError: not yet: 3")


def test_only_some_exceptions_are_worth_another_try(site: Site) -> None:
    names = ["IndexError", "KeyError", "ValueError", "SystemExit", "KeyboardInterrupt"]
    site.foreman()
    choosy.delay_many((name,) for name in names)
    wait_until(lambda: site.counts() == {"failed": len(names)})
    assert list(Task.objects.order_by("id").values_list("attempts", flat=True)) == [2, 1, 1, 1, 1]
    assert len(starts(site)) == 6


def test_without_end(site: Site) -> None:
    site.foreman()
    endless.delay("x", 12)
    wait_until(lambda: site.ledger.count("end", "x"))
    assert starts(site) == [str(number) for number in range(1, 13)]


def test_what_is_known_while_it_waits(site: Site) -> None:
    site.foreman()
    try_later.delay("x", 9)
    wait_until(lambda: site.counts() == {"scheduled": 1})
    row = Task.objects.get()
    assert (row.attempts, row.finished_at) == (1, None)
    assert "ValueError: not yet" in row.error and numbers(row) == [1]
    assert row.run_after is not None and row.started_at is not None
    assert (row.run_after - row.started_at).total_seconds() >= 2


def test_nothing_is_tried_again_early(site: Site) -> None:
    site.foreman()
    as_in_taskq.delay("x")
    wait_until(lambda: site.counts() == {"failed": 1})
    first, second = site.ledger.moments("start", "x", 1)[0], site.ledger.moments("start", "x", 2)[0]
    assert second - first >= 0.29
    assert starts(site) == ["1", "2"]


def test_retry_kwargs_are_options() -> None:
    assert (as_in_taskq.options.max_retries, as_in_taskq.options.default_retry_delay) == (1, 0.3)


# by Retry


WAYS = [
    ("exc", 3, "LookupError: the cause"),
    ("eta", 3, "Retry: tried again"),
    ("past eta", 3, "Retry: tried again"),
    ("timedelta", 3, "Retry: tried again"),
    ("more", 5, "Retry: tried again"),
    ("current_task", 3, "Retry: tried again"),
    ("function", 3, "LookupError: the cause"),
    # an invalid Retry fails the task, and affects nothing else
    ("text", 1, "TypeError: .*'60'"),
    ("nan", 1, "ValueError: .*NaN"),
    ("naive", 1, "ValueError: .*is naive"),
    ("word", 1, "TypeError: .*eta=.tomorrow."),
    ("number of retries", 1, "TypeError: .*'tomorrow'"),
]


def test_ways_to_ask_for_another_try(site: Site) -> None:
    foreman = site.foreman(NUM_WORKERS=1)
    for how, attempts, words in WAYS:
        site.ledger.path.unlink(missing_ok=True)
        task_id = ask_again.delay(how).id
        wait_until(lambda: set(site.counts()) == {"failed"} or foreman.popen.poll() is not None)
        assert len(starts(site)) == attempts == Task.objects.get(pk=task_id).attempts, how
        foreman.wait_for_output(rf"Failed .*ask_again #{task_id} after [\d.]+ s: {words}")
        least = {"eta": 0.45, "timedelta": 0.29}.get(how, 0)
        moments = [site.ledger.moments("start", number)[0] for number in range(1, attempts + 1)]
        assert all(after - before >= least for before, after in pairwise(moments)), how
    fail_until.delay("the next", 1)
    wait_until(lambda: site.ledger.count("end", "the", "next"))


def test_the_cause_is_on_the_row(site: Site) -> None:
    site.foreman()
    ask_again.delay("exc")
    wait_until(lambda: site.counts() == {"failed": 1})
    row = Task.objects.get()
    assert "LookupError: the cause" in row.error and "in _retry\n" in row.error
    assert [line["error"] for line in row.attempt_errors()] == ["LookupError: the cause"] * 3


def test_retry_until_it_succeeds(site: Site) -> None:
    site.foreman()
    retry_itself.delay("x", 3, 0.2)
    wait_until(lambda: site.ledger.count("end", "x"))
    assert starts(site) == ["1", "2", "3"]
    moments = [site.ledger.moments("start", "x", number)[0] for number in (1, 2, 3)]
    assert moments[1] - moments[0] >= 0.19 and moments[2] - moments[1] >= 0.19


def test_nothing_can_be_tried_again_where_no_task_runs() -> None:
    with pytest.raises(NoCurrentTask):
        current_task.retry(countdown=1)
    with pytest.raises(NoCurrentTask):
        ask_again.retry()


def test_a_retry_says_why() -> None:
    assert str(Retry()) == "tried again" and str(Retry("no luck")) == "no luck"
    assert str(Retry(exc=ValueError("no luck"))) == "ValueError: no luck"


# how long


seconds = st.floats(min_value=0.001, max_value=1e9)
retries = st.integers(min_value=0, max_value=10**12)


@given(backoff=seconds | st.just(True), longest=seconds, count=retries)
def test_backoff_doubles_up_to_its_maximum(backoff: Any, longest: float, count: int) -> None:
    options = Options(retry_backoff=backoff, retry_backoff_max=longest, retry_jitter=False)
    delay = options.retry_delay(count)
    assert min(float(backoff), longest) <= delay <= longest
    assert options.retry_delay(count + 1) == (min(2 * delay, longest) if count < 1000 else longest)
    assert options.retry_delay(0) == min(float(backoff), longest)


@given(backoff=seconds, longest=seconds, count=retries)
def test_jitter_takes_a_part_of_the_backoff(backoff: float, longest: float, count: int) -> None:
    exact = Options(retry_backoff=backoff, retry_backoff_max=longest, retry_jitter=False)
    random = Options(retry_backoff=backoff, retry_backoff_max=longest)
    assert 0 <= random.retry_delay(count) <= exact.retry_delay(count)


def test_jitter_keeps_apart_what_failed_together() -> None:
    options = Options(retry_backoff=10)
    assert len({options.retry_delay(3) for _ in range(100)}) > 90


@given(count=retries, delay=st.floats(min_value=0, max_value=1e9))
def test_without_backoff_the_delay_is_always_the_same(count: int, delay: float) -> None:
    assert Options(default_retry_delay=delay).retry_delay(count) == delay


@pytest.mark.parametrize(
    "options",
    [
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"max_retries": True},
        {"default_retry_delay": "60"},
        {"default_retry_delay": float("nan")},
        {"retry_backoff": -1},
        {"retry_backoff_max": None},
        {"autoretry_for": ValueError},
        {"autoretry_for": ("ValueError",)},
        {"dont_autoretry_for": (int,)},
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(TaskDefinitionError, match=next(iter(options))):
        Options.of("tests.nonsense", options)


def test_exceptions_may_be_a_list() -> None:
    assert Options.of("tests.list", {"autoretry_for": [ValueError]}).autoretry_for == (ValueError,)


# what comes between


def test_retries_survive_a_restart(site: Site) -> None:
    foreman = site.foreman()
    try_later.delay("x", 2)
    wait_until(lambda: site.counts() == {"scheduled": 1})
    assert foreman.stop() == 0
    assert site.counts() == {"scheduled": 1}
    site.foreman()
    wait_until(lambda: site.ledger.count("end", "x"))
    assert starts(site) == ["1", "2"]
    assert site.ledger.moments("start", "x", 2)[0] - site.ledger.moments("start", "x", 1)[0] >= 1.99


def test_a_requeue_gives_all_retries_back(site: Site) -> None:
    site.foreman()
    fail_until.delay("x", 9)
    wait_until(lambda: site.counts() == {"failed": 1})
    assert operations.requeue(Task.objects.all()) == 1
    wait_until(lambda: len(starts(site)) == 6 and site.counts() == {"failed": 1})
    assert starts(site) == ["1", "2", "3"] * 2
    row = Task.objects.get()
    assert (row.attempts, row.claims) == (3, 6)
    assert numbers(row) == [1, 2, 3, 4, 5, 6], "what was before is not forgotten"


def test_a_requeue_does_not_wait_for_the_time(site: Site) -> None:
    site.foreman()
    try_later.apply_async(("x", 1), countdown=3600)
    assert operations.requeue(Task.objects.all()) == 1
    wait_until(lambda: site.ledger.count("end", "x"))


def test_interruptions_use_up_no_retries(site: Site) -> None:
    go = site.directory / "go"
    foreman = site.foreman()
    fail_once_told.delay("x", str(go))
    wait_until(lambda: starts(site) == ["1"])
    foreman.kill()
    foreman = site.foreman(GRACEFUL_TIMEOUT=0)
    wait_until(lambda: starts(site) == ["1", "2"])
    assert foreman.stop() == 0
    go.touch()
    site.foreman()
    wait_until(lambda: site.counts() == {"failed": 1})
    assert starts(site) == ["1", "2", "3", "4", "5"]
    row = Task.objects.get()
    assert (row.attempts, row.interruptions) == (5, 2)
    errors = [line["error"] for line in row.attempt_errors()]
    assert errors == [
        "The Foreman died while this task ran.",
        "The Foreman was stopped while this task ran.",
        *["ValueError: told to"] * 3,
    ]
    assert numbers(row) == [1, 2, 3, 4, 5]


def test_recovery_of_what_was_to_be_tried_again(site: Site) -> None:
    """The Foreman died after the task raised, and before that was written."""
    for _ in range(2):
        Task.objects.create(task_name=fail_until.name, status="running", claims=1, attempts=1)
    (first, second) = recovery.recover(
        raw(connect()),
        "2026-01-01 12:00:00",
        {Entry.of(1, 1, None): Note.TO_RETRY, Entry.of(2, 1, None): Note.FAILED},
    )
    assert (first.id, first.outcome, first.status) == (1, "to be retried", None)
    assert (second.id, second.outcome, second.status) == (2, "failed", None)
    row = Task.objects.get(pk=1)
    assert (row.status, row.attempts, row.interruptions) == ("scheduled", 1, 0)
    assert row.run_after == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert row.error == "It raised; the Foreman died before the traceback was written."
    assert [line["error"] for line in row.attempt_errors()] == [row.error] and numbers(row) == [1]
    assert store.promote(raw(connect()), "2026-01-01 12:00:00") == 1


def test_what_was_recovered_is_tried_again(site: Site) -> None:
    Task.objects.create(
        task_name=fail_until.name, args=["x", 2], status="running", claims=1, attempts=1, acks_late=False
    )
    recovery.recover(raw(connect()), "2026-01-01 12:00:00", {Entry.of(1, 1, None): Note.TO_RETRY})
    before = time.monotonic()
    site.foreman()
    wait_until(lambda: site.ledger.count("end", "x"))
    assert starts(site) == ["2"] and site.ledger.moments("start", "x", 2)[0] >= before
