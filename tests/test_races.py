"""Races: Foremen, enqueuers, and operations of users while tasks run."""

import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from django.db import connections

from snappea.models import Task
from snappea.queue import operations
from tests.playground.tasks import nap, nothing, record, wait_for
from tests.site import Site, wait_until

pytestmark = pytest.mark.long


def test_of_two_foremen_started_at_once_exactly_one_runs(site: Site) -> None:
    """Of eight Foremen that start at once, exactly one wins."""
    record.delay_many((key,) for key in range(50))
    foremen = [site.manage("runsnappea") for _ in range(8)]
    wait_until(lambda: sum(foreman.popen.poll() is not None for foreman in foremen) == 7)
    winners = [foreman for foreman in foremen if foreman.popen.poll() is None]
    assert len(winners) == 1
    for loser in foremen:
        if loser is not winners[0]:
            assert loser.popen.returncode == 1
            assert "Another Foreman is at work" in loser.output()
    assert any(f"pid {winners[0].pid} on" in loser.output() for loser in foremen if loser is not winners[0])
    site.wait_until_empty()
    assert set(site.ledger.keys("start").values()) == {1}
    assert winners[0].stop() == 0


@pytest.mark.parametrize("content", ["", "pid {living} on here, since ever\n", "pid 1 on here\n", "\xff\xfe"])
def test_a_stale_lock_file_stops_nobody(site: Site, content: str) -> None:
    content = content.replace("{living}", str(os.getpid()))
    Path(f"{site.database}-lock").write_bytes(content.encode("latin-1"))
    record.delay("x")
    site.foreman()
    wait_until(lambda: site.ledger.count("end", "x"))


def test_many_processes_and_threads_enqueue_while_it_runs(site: Site) -> None:
    code = """
import threading
who = sys.argv[1]
def enqueue(thread):
    for number in range(100):
        record.delay(f"{who}-{thread}-{number}")
threads = [threading.Thread(target=enqueue, args=(thread,)) for thread in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
    site.foreman(NUM_WORKERS=4)
    enqueuers = [site.program(code, who) for who in ("a", "b", "c")]
    assert [enqueuer.wait() for enqueuer in enqueuers] == [0, 0, 0], enqueuers[0].output()
    site.wait_until_empty()
    assert site.counts() == {}
    ran = site.ledger.keys("end")
    assert len(ran) == 1200 and set(ran.values()) == {1}


def test_cancel_and_requeue_race_with_the_foreman(site: Site) -> None:
    """A row that is deleted or changed by hand while it runs does no harm; none runs twice."""
    site.foreman(NUM_WORKERS=2)
    keys = [f"k-{number}" for number in range(300)]
    nap.delay_many((key, 0.001) for key in keys)
    cancelled = 0
    while {"ready", "running"} & set(site.counts()):
        cancelled += operations.cancel(Task.objects.filter(id__in=Task.objects.order_by("-id")[:5]))
        assert operations.requeue(Task.objects.filter(status__in=("ready", "running"))) == 0
    ran = site.ledger.keys("end")
    assert cancelled + len(ran) == 300 and set(ran.values()) == {1}
    assert site.counts() == {}


def test_a_row_that_vanishes_while_its_task_runs(site: Site) -> None:
    foreman = site.foreman()
    wait_for.delay("x", str(site.directory / "go"))
    wait_until(lambda: site.ledger.count("start", "x"))
    site.sql("DELETE FROM snappea_task")
    (site.directory / "go").touch()
    foreman.wait_for_output("1 finished tasks had been changed by another process")
    record.delay("y")
    wait_until(lambda: site.ledger.count("end", "y"))


def test_a_task_that_was_claimed_again_is_not_settled_by_the_first_claim(site: Site) -> None:
    foreman = site.foreman()
    wait_for.delay("x", str(site.directory / "go"))
    wait_until(lambda: site.ledger.count("start", "x"))
    site.sql("UPDATE snappea_task SET claims = claims + 1")
    (site.directory / "go").touch()
    foreman.wait_for_output("1 finished tasks had been changed by another process")
    assert site.counts() == {"running": 1}


def test_a_flood_of_rings_is_borne(site: Site) -> None:
    foreman = site.foreman()
    wakeup = f"{site.database}-wakeup"
    began, before = time.monotonic(), _cpu_seconds(foreman.pid)
    for _ in range(30_000):
        os.utime(wakeup)
    taken = time.monotonic() - began
    assert _cpu_seconds(foreman.pid) - before < 0.2 + taken / 2
    record.delay("x")
    wait_until(lambda: site.ledger.count("end", "x"))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_fork_with_open_connections_corrupts_nothing(site: Site) -> None:
    """As `gunicorn --preload` forks after the application was loaded and has used the queue."""
    code = """
import os
nothing.delay()
children = []
for number in range(4):
    if (child := os.fork()) == 0:
        for n in range(50):
            record.delay(f"{number}-{n}")
        os._exit(0)
    children.append(child)
for n in range(50):
    record.delay(f"parent-{n}")
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
record.delay("last")
"""
    site.foreman()
    assert (parent := site.program(code)).wait() == 0, parent.output()
    site.wait_until_empty()
    assert site.counts() == {} and len(site.ledger.keys("end")) == 251
    assert site.sql("PRAGMA integrity_check") == [("ok",)]


def test_threads_of_one_process_enqueue_through_connections_of_their_own(site: Site) -> None:
    failures: list[BaseException] = []

    def enqueue() -> None:
        try:
            for _ in range(50):
                nothing.delay()
        except BaseException as failure:
            failures.append(failure)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=enqueue) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert site.counts() == {"ready": 400}


def test_migrating_a_database_in_use(site: Site) -> None:
    site.foreman()
    record.delay("x")
    migrate = site.manage("migrate", "--using=snappea")
    assert migrate.wait() == 0
    record.delay("y")
    wait_until(lambda: site.ledger.count("end", "y") and site.ledger.count("end", "x"))


def test_a_copy_taken_while_it_runs_is_whole(site: Site) -> None:
    site.foreman()
    nap.delay_many((key, 0.001) for key in range(500))
    backup = site.directory / "backup.sqlite3"
    with (
        contextlib.closing(sqlite3.connect(site.database)) as original,
        contextlib.closing(sqlite3.connect(backup)) as copy,
    ):
        original.backup(copy)
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    site.wait_until_empty()
    assert len(site.ledger.keys("end")) == 500
