"""Soft time limits: which task is ended, when, and what happens to a worker that hangs."""

import os
import re
import time
from typing import Any

import pytest

from snappea.models import Task
from tests.playground.limited import (
    about_its_limit,
    clean_up,
    spin,
    spin_at_first,
    spin_unlimited,
    swallow,
    tell_deadline,
    wait_outside_python,
)
from tests.playground.tasks import nap, record
from tests.site import DEADLINE, Site, wait_until


def test_a_task_that_takes_too_long_fails(site: Site) -> None:
    site.foreman()
    spin.delay("x")
    site.wait_until_empty()
    task = Task.objects.get()
    assert task.status == "failed" and task.started_at and task.finished_at
    assert "in spin\n    while True:" in task.error
    assert task.error.endswith("SoftTimeLimitExceeded: it took more than 0.3 s\n")
    assert (task.finished_at - task.started_at).total_seconds() >= 0.3


def test_it_may_clean_up_and_even_finish(site: Site) -> None:
    site.foreman()
    assert clean_up.delay("x").get(timeout=DEADLINE) == "finished"
    assert site.ledger.count("cleaned", "x") == 1


def test_it_is_tried_again_if_it_says_so(site: Site) -> None:
    site.foreman()
    spin_at_first.delay("mended", 2)
    spin_at_first.delay("hopeless", 9)
    wait_until(lambda: Task.objects.filter(status="failed").exists())
    wait_until(lambda: Task.objects.count() == 1)
    assert site.ledger.count("start", "mended") == 3 and site.ledger.count("end", "mended") == 1
    assert [line["error"] for line in Task.objects.get().attempt_errors()] == [
        "SoftTimeLimitExceeded: it took more than 0.2 s"
    ] * 3


@pytest.mark.parametrize(
    "limits",
    [
        {"QUEUES": {"default": {"soft_time_limit": 0.2}}, "SOFT_TIME_LIMIT": 1000},
        {"QUEUES": {"other": {"soft_time_limit": 1000}}, "SOFT_TIME_LIMIT": 0.2},
        {"SOFT_TIME_LIMIT": 0.2},
    ],
    ids=["queue", "setting beside a queue", "setting"],
)
def test_the_limit_of_the_queue_comes_before_the_setting(site: Site, limits: dict[str, Any]) -> None:
    site.foreman(**limits)
    spin_unlimited.delay("x")
    site.wait_until_empty()
    assert Task.objects.get().error.endswith("it took more than 0.2 s\n")


def test_the_limit_of_the_task_comes_first(site: Site) -> None:
    site.foreman(QUEUES={"default": {"soft_time_limit": 1000}}, SOFT_TIME_LIMIT=2000)
    spin.delay("x")
    site.wait_until_empty()
    assert Task.objects.get().error.endswith("it took more than 0.3 s\n")


def test_a_task_can_ask_for_its_deadline(site: Site) -> None:
    site.foreman()
    tell_deadline.delay("x")
    site.wait_until_empty()
    ((_, _, seconds),) = site.ledger.lines()
    assert 60 <= int(seconds) <= 110


@pytest.mark.long
def test_limits_hit_only_the_task_that_is_meant(site: Site) -> None:
    """Many tasks that take about as long as their limit: each succeeds, or fails of its limit."""
    foreman = site.foreman(NUM_WORKERS=4)
    about_its_limit.delay_many((number,) for number in range(3_000))
    site.wait_until_empty()
    failed = dict(Task.objects.values_list("args", "error"))
    assert site.counts() == {"failed": len(failed)}
    ended = {int(number) for number in site.ledger.keys("end")}
    given_up = {int(re.sub(r"\D", "", args)) for args in failed}
    assert ended | given_up == set(range(3_000))
    assert 10 < len(given_up) < 2_990, "otherwise nothing was tested"
    wrong = [error for error in failed.values() if "SoftTimeLimitExceeded" not in error]
    assert not wrong, wrong[0]
    assert "The round failed" not in foreman.output() and "Exception in thread" not in foreman.output()
    assert foreman.stop() == 0


# stuck workers


def test_a_worker_that_hangs_is_replaced_and_comes_to_its_end(site: Site) -> None:
    pipe = site.directory / "pipe"
    os.mkfifo(pipe)
    foreman = site.hasty_foreman(threads__STUCK_AFTER=0.2)
    for key in range(4):  # as many as there are workers
        wait_outside_python.delay(str(key), str(pipe))
    foreman.wait_for_output(r"wait_outside_python #\d+ does not end.*: 4\n")
    nap.delay_many([("n", 0.05)] * 8)
    wait_until(lambda: site.ledger.count("end", "n") == 8)
    wait_until(lambda: site.counts() == {"running": 4})
    with open(pipe, "wb"):
        wait_until(lambda: site.counts() == {"failed": 4})
    assert not site.ledger.keys("too")
    record.delay("x")
    site.wait_until_empty()
    wait_until(lambda: threads(foreman.pid) <= 4 + 1)  # the replaced threads have ended
    assert foreman.stop() == 0


def test_a_task_that_swallows_its_limit_succeeds_in_the_end(site: Site) -> None:
    foreman = site.hasty_foreman(threads__STUCK_AFTER=0.2)
    go = site.directory / "go"
    swallow.delay("x", str(go))
    foreman.wait_for_output("does not end")
    assert site.ledger.count("swallowed", "x") == 1
    go.touch()
    site.wait_until_empty()
    assert site.counts() == {} and site.ledger.count("end", "x") == 1
    assert foreman.stop() == 0


def test_too_many_that_hang_stop_the_foreman(site: Site) -> None:
    site.settings |= {"MAX_STUCK_WORKERS": 1, "GRACEFUL_TIMEOUT": 0.2, "NUM_WORKERS": 2}
    foreman = site.hasty_foreman(threads__STUCK_AFTER=0.2)
    for key in ("first", "second"):
        swallow.delay(key, str(site.directory / "go"))
    assert foreman.wait() == 3
    assert "2 workers are stuck" in foreman.output()
    assert site.counts() == {"interrupted": 2}


FULL_DISK = """
import logging, resource
from django.core.management import call_command
from snappea.workers import threads

_soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

class FullDisk(logging.Handler):
    def emit(self, record):
        said = record.getMessage()
        if said.endswith("Stuck workers: 2"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        elif said.startswith("The round failed"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            print(said, flush=True)

logging.getLogger("snappea.foreman").addHandler(FullDisk())
threads.STUCK_AFTER = 0.2
call_command("runsnappea")
"""


def test_too_many_that_hang_stop_the_foreman_even_if_that_cannot_be_told(site: Site) -> None:
    site.settings |= {"MAX_STUCK_WORKERS": 1, "GRACEFUL_TIMEOUT": 0.2, "NUM_WORKERS": 2}
    foreman = site.program(FULL_DISK)
    for key in ("first", "second"):
        swallow.delay(key, str(site.directory / "go"))
    assert foreman.wait() == 3, foreman.output()
    assert "The round failed" in foreman.output(), "the disk was full"
    assert site.counts() == {"interrupted": 2}


ANOTHER_FILE = """
import logging, os
from contextlib import suppress
from django.core.management import call_command
from snappea.workers import threads

class TakesDescriptor(logging.Handler):
    def emit(self, record):
        if "does not end" in record.getMessage():
            for name in os.listdir("/proc/self/fd"):
                with suppress(OSError):
                    if os.readlink(f"/proc/self/fd/{name}").endswith("-lock"):
                        os.dup2(os.open(sys.argv[1], os.O_RDWR), int(name))

logging.getLogger("snappea.foreman").addHandler(TakesDescriptor())
threads.STUCK_AFTER = 0.2
call_command("runsnappea")
"""


def test_what_is_told_of_stuck_workers_goes_into_no_other_file(site: Site) -> None:
    other = site.directory / "other"
    other.write_text("of somebody else")
    foreman = site.program(ANOTHER_FILE, str(other))
    swallow.delay("x", str(site.directory / "go"))
    assert foreman.wait() == 1  # a task has closed the Foreman's descriptors
    assert other.read_text() == "of somebody else"


def test_a_revoked_task_that_goes_on_counts_as_stuck(site: Site) -> None:
    pipe = site.directory / "pipe"
    os.mkfifo(pipe)
    foreman = site.hasty_foreman(threads__STUCK_AFTER=0.5)
    result = wait_outside_python.delay("x", str(pipe))
    wait_until(lambda: site.ledger.count("start", "x"))
    time.sleep(0.3)  # beyond its limit, so that both come together
    assert result.revoke(terminate=True)
    foreman.wait_for_output("does not end")
    with open(pipe, "wb"):
        wait_until(lambda: not site.counts().get("running"))
    assert site.counts() == {"cancelled": 1}
    assert foreman.stop() == 0


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))
