"""Faults injected from outside: the disk, the files, the system, the tasks."""

import contextlib
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connections

from snappea.errors import EnqueueError
from snappea.models import Task
from snappea.queue import operations
from tests.clock import set_clock
from tests.playground.tasks import (
    break_connection,
    enqueue_more,
    fail_at_length,
    fork,
    fork_and_stay,
    leak_plain_transaction,
    leak_transaction,
    nap,
    nothing,
    raise_it,
    raise_unprintable,
    record,
    wait_for,
)
from tests.site import DEADLINE, Site, wait_until

pytestmark = pytest.mark.long


def assert_it_still_works(site: Site) -> None:
    """Enqueue a canary, and wait until it has run."""
    key = f"canary-{time.monotonic()}"
    record.delay(key)
    wait_until(lambda: site.ledger.count("end", key), f"{key} in {site.processes[-1].output()}")
    wait_until(lambda: not site.sql("SELECT id FROM snappea_task WHERE args = ?", f'["{key}"]'))


# the disk


@pytest.fixture
def small_disk(site: Site) -> Iterator[Path]:
    """Put the queue's database onto a file system of 600 kB."""
    mounted = site.directory / "disk"
    mounted.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", mounted], capture_output=True, text=True
    )
    if done.returncode:
        if os.environ.get("CI"):
            pytest.fail(done.stderr)
        pytest.skip(f"NOT TRIED: cannot mount a small disk: {done.stderr}")
    try:
        site.move_database(mounted)
        yield mounted
    finally:
        site.end()
        connections.close_all()
        subprocess.run(["umount", "-l", mounted], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


def test_a_full_disk(site: Site, small_disk: Path) -> None:
    foreman = site.foreman()
    fail_at_length.delay("across", str(site.directory / "go"))  # its error needs space
    wait_until(lambda: site.ledger.count("start", "across"))
    filler = fill(small_disk)
    accepted = 0
    with pytest.raises(
        EnqueueError, match=r"full \(free space on the disk, and try again\). Nothing was written"
    ):
        for accepted in range(10_000):
            record.delay(f"r-{accepted}")
    (site.directory / "go").touch()
    foreman.wait_for_output("The round failed: .*full")
    filler.unlink()
    assert_it_still_works(site)
    site.wait_until_empty()
    assert site.counts() == {"failed": 1}
    assert site.ledger.keys("end") == {
        **{f"r-{number}": 1 for number in range(accepted)},
        **{key: 1 for key in site.ledger.keys("end") if not key.startswith("r-")},
    }
    assert set(site.ledger.keys("start").values()) == {1}
    assert foreman.stop() == 0


def test_a_disk_too_full_to_start_on(site: Site, small_disk: Path) -> None:
    filler = fill(small_disk)
    refused = site.manage("runsnappea")
    assert refused.wait() == 1
    assert "cannot start" in refused.output() and "Traceback" not in refused.output()
    filler.unlink()
    site.foreman()
    assert_it_still_works(site)


@pytest.mark.needs("strace")
def test_a_disk_that_fails_while_the_foreman_writes(site: Site) -> None:
    for key in range(50):
        record.delay(key)
    inject = "inject=pwrite64:error=EIO:when=12..40"
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64", "-e", inject]
    foreman = site.foreman(wrapper=strace)
    foreman.wait_for_output("The round failed: .*disk I/O error")
    assert_it_still_works(site)
    site.wait_until_empty()
    assert len(foreman.output().split("The round failed")) <= 3, "one line a minute"
    assert site.counts() == {} and set(site.ledger.keys("start").values()) == {1}
    assert len(site.ledger.keys("end")) == 51


@pytest.mark.needs("strace")
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EROFS"])
def test_a_disk_that_fails_while_a_task_is_enqueued(site: Site, error: str) -> None:
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64", "-e"]
    code = """
from snappea.errors import EnqueueError
try:
    nothing.delay()
except EnqueueError as error:
    print("refused:", error)
"""
    process = site.program(code, wrapper=[*strace, f"inject=pwrite64:error={error}:when=1+"])
    assert process.wait() == 0
    assert "refused: tests.playground.tasks.nothing was not enqueued" in process.output()
    assert site.counts() == {}


def test_a_write_lock_held_for_seconds(site: Site) -> None:
    foreman = site.foreman()
    wait_for.delay("across", str(site.directory / "go"))
    wait_until(lambda: site.ledger.count("start", "across"))
    connections["snappea"].close()
    connections["snappea"].settings_dict["OPTIONS"]["timeout"] = 0.5
    locker = sqlite3.connect(site.database, isolation_level=None)
    try:
        locker.execute("BEGIN IMMEDIATE")
        (site.directory / "go").touch()
        before = time.monotonic()
        with pytest.raises(EnqueueError, match=r"database is locked .*try again.* Nothing was written"):
            nothing.delay()
        assert time.monotonic() - before >= 0.5
        foreman.wait_for_output("The round failed: .*database is locked")
        time.sleep(3)
        assert foreman.popen.poll() is None
        locker.execute("ROLLBACK")
        assert_it_still_works(site)
        site.wait_until_empty()
        assert site.counts() == {}
    finally:
        locker.close()
        del connections["snappea"].settings_dict["OPTIONS"]["timeout"]


def test_a_signal_is_heard_while_somebody_holds_the_write_lock(site: Site) -> None:
    foreman = site.foreman(GRACEFUL_TIMEOUT=0.2)
    nap.delay("x", 3600)
    wait_until(lambda: site.ledger.count("start", "x"))
    locker = sqlite3.connect(site.database, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    assert foreman.stop() == 1
    assert "Could not write the final states" in foreman.output()
    locker.close()
    site.foreman()
    site.wait_until_empty()
    assert site.counts() == {"interrupted": 1}


def test_what_ends_while_the_last_words_wait_for_the_write_lock_was_not_stopped(site: Site) -> None:
    site.settings["GRACEFUL_TIMEOUT"] = 0.2
    foreman = site.hasty_foreman(loop__LAST_WORDS=120)
    wait_for.delay("x", str(site.directory / "go"))
    wait_until(lambda: site.ledger.count("start", "x"))
    locker = sqlite3.connect(site.database, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    foreman.send(signal.SIGTERM)
    foreman.wait_for_output("Could not write the final states yet")
    time.sleep(0.3)  # by now it retries, and waits half a second for the lock
    (site.directory / "go").touch()
    wait_until(lambda: site.ledger.count("end", "x"))
    time.sleep(0.5)  # time for its thread to log it
    locker.close()
    assert foreman.wait() == 0
    assert site.counts() == {}


# the files


@pytest.mark.parametrize("how", ["deleted", "replaced", "moved away"])
def test_the_wakeup_file_is_put_back(site: Site, how: str) -> None:
    foreman = site.foreman()
    wakeup = Path(f"{site.database}-wakeup")
    if how == "deleted":
        wakeup.unlink()
    elif how == "moved away":
        wakeup.rename(site.directory / "elsewhere")
    else:
        (site.directory / "other").touch()
        (site.directory / "other").rename(wakeup)
    assert_it_still_works(site)
    wait_until(wakeup.exists)
    watched = f"ino:{wakeup.stat().st_ino:x} "
    wait_until(lambda: watched in _inotify_watches(foreman.pid), "the new file to be watched")
    assert_it_still_works(site)


def _inotify_watches(pid: int) -> str:
    texts = []
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            texts.append(info.read_text())
    return "".join(line for text in texts for line in text.splitlines() if line.startswith("inotify"))


@pytest.mark.needs("chattr")
def test_a_directory_in_which_nothing_can_be_created(site: Site) -> None:
    foreman = site.foreman()
    foreman.send(19)
    Path(f"{site.database}-wakeup").unlink()
    done = subprocess.run(["chattr", "+i", site.directory], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"NOT TRIED: cannot make a directory immutable: {done.stderr}")
    try:
        foreman.send(18)
        foreman.wait_for_output("Cannot watch .*; polling the table instead")
        nothing.delay()
        site.wait_until_empty()
    finally:
        subprocess.run(["chattr", "-i", site.directory], check=True)
    assert_it_still_works(site)


def test_no_symbolic_link_is_followed(site: Site) -> None:
    victim = site.directory / "victim"
    victim.write_text("precious")
    for suffix in ("wakeup", "lock", "logbook"):
        Path(f"{site.database}-{suffix}").symlink_to(victim)
    refused = site.manage("runsnappea")
    assert refused.wait() == 1 and "Cannot open" in refused.output()
    Path(f"{site.database}-lock").unlink()
    refused = site.manage("runsnappea")
    assert refused.wait() == 1 and "cannot start" in refused.output()
    Path(f"{site.database}-logbook").unlink()
    site.foreman()  # which then has no wakeups
    assert_it_still_works(site)
    assert victim.read_text() == "precious"


def test_a_fifo_is_not_waited_for(site: Site) -> None:
    for suffix in ("wakeup", "lock", "logbook"):
        os.mkfifo(f"{site.database}-{suffix}")
    nothing.delay()
    assert site.manage("snappea", "status").wait() == 0
    for suffix in ("lock", "logbook"):
        refused = site.manage("runsnappea")
        assert refused.wait() == 1
        assert f"-{suffix} is not a regular file; move it away" in refused.output()
        assert "Traceback" not in refused.output()
        Path(f"{site.database}-{suffix}").unlink()
    site.foreman()
    assert_it_still_works(site)


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_the_database_goes_away(site: Site, how: str, migrated: Path) -> None:
    site.settings["GRACEFUL_TIMEOUT"] = 4  # all of it passes, for no outcome can be written
    foreman = site.hasty_foreman(loop__LAST_WORDS=1.0)
    wait_for.delay("long", str(site.directory / "go"))
    wait_until(lambda: site.ledger.count("start", "long"))
    site.database.unlink()
    if how == "replaced":
        for suffix in ("-wal", "-shm"):
            Path(f"{site.database}{suffix}").unlink()
        shutil.copy(migrated / "snappea.sqlite3", site.database)
        record.delay("into the new one".replace(" ", "-"))
    else:
        with pytest.raises(EnqueueError, match=r"is not migrated.*migrate --database=snappea"):
            nothing.delay()
    foreman.wait_for_output("ERROR Stopping: .* was deleted or replaced")
    (site.directory / "go").touch()
    assert foreman.wait() == 1
    assert site.ledger.count("end", "long") == 1
    if how == "replaced":
        site.foreman()
        wait_until(lambda: site.ledger.count("end", "into-the-new-one"))
        site.wait_until_empty()
    assert set(site.ledger.keys("start").values()) == {1}


def test_the_lock_file_goes_away(site: Site) -> None:
    foreman = site.foreman()
    Path(f"{site.database}-lock").unlink()
    assert foreman.wait() == 1
    assert "another Foreman may have started" in foreman.output()


def test_the_table_goes_away_and_comes_back(site: Site) -> None:
    foreman = site.foreman()
    call_command("migrate", "snappea", "zero", using="snappea", verbosity=0)
    with pytest.raises(EnqueueError, match=r"is not migrated.*migrate --database=snappea"):
        nothing.delay()
    foreman.wait_for_output("The round failed: .*no such table")
    call_command("migrate", using="snappea", verbosity=0)
    assert_it_still_works(site)
    assert foreman.stop() == 0


# the system


@pytest.mark.needs("strace")
@pytest.mark.parametrize("inject", ["inotify_init1:error=EMFILE", "inotify_add_watch:error=ENOSPC"])
def test_no_inotify_to_be_had(site: Site, inject: str) -> None:
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={inject.split(':')[0]}"]
    foreman = site.foreman(wrapper=[*strace, "-e", f"inject={inject}"])
    assert_it_still_works(site)
    assert_it_still_works(site)
    said = [line for line in foreman.output().splitlines() if "polling" in line]
    assert len([line for line in said if "WARNING" in line]) == 1, foreman.output()


@pytest.mark.needs("strace")
def test_no_thread_to_be_had(site: Site) -> None:
    for key in range(20):
        record.delay(key)
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=clone3,clone"]
    # the first is the fork server, without which it does not start
    inject = ["-e", "inject=clone3,clone:error=EAGAIN:when=2..7"]
    foreman = site.foreman(wrapper=[*strace, *inject])
    foreman.wait_for_output("can't start new thread")
    site.wait_until_empty()
    assert set(site.ledger.keys("start").values()) == {1} and len(site.ledger.keys("end")) == 20
    assert_it_still_works(site)


@pytest.mark.needs("strace")
def test_no_fork_server_to_be_had(site: Site) -> None:
    inject = ["-e", "trace=clone3,clone", "-e", "inject=clone3,clone:error=EAGAIN:when=1"]
    process = site.manage("runsnappea", wrapper=["strace", "-qq", "-o", "/dev/null", *inject])
    assert process.wait() == 1
    (line,) = process.output().splitlines()
    assert line.startswith(
        "CommandError: The Foreman cannot start: no process could be started for isolated tasks: "
    )


def test_no_descriptor_to_be_had(site: Site) -> None:
    foreman = site.foreman(NUM_WORKERS=2)
    assert_it_still_works(site)
    _soft, hard = resource.prlimit(foreman.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(foreman.pid, resource.RLIMIT_NOFILE, (3, hard))
    record.delay_many((key,) for key in range(20))
    site.wait_until_empty()
    assert site.counts() == {"failed": 20}
    assert "Too many open files" in Task.objects.all()[0].error
    resource.prlimit(foreman.pid, resource.RLIMIT_NOFILE, (hard, hard))
    assert operations.requeue(Task.objects.all()) == 20
    site.wait_until_empty()
    assert site.counts() == {} and len(site.ledger.keys("end")) == 21


def test_the_clock_is_set_back_and_forth(site: Site) -> None:
    """The wall clock decides only when a task is due: no hang, no spin, no early start."""
    site.variables["SNAPPEA_TEST_APPS"] = "tests.clock.SettableClock"
    foreman = site.foreman()
    site.sql(
        "INSERT INTO snappea_task (task_name, args, status, enqueued_at, run_after)"
        " VALUES (?, '[\"later\"]', 'scheduled', datetime('now'), datetime('now', '+1800 seconds'))",
        record.name,
    )
    for offset in (-3600, 0, 1700):
        set_clock(site.directory, offset)
        assert_it_still_works(site)
        nap.delay(f"nap{offset}", 0.01)
    site.wait_until_empty()
    assert site.counts() == {"scheduled": 1}
    set_clock(site.directory, 1801)
    wait_until(lambda: site.ledger.count("end", "later"))
    assert foreman.stop() == 0


# log and output


def test_a_log_handler_that_raises(site: Site) -> None:
    site.variables["SNAPPEA_TEST_LOGGING"] = "broken"
    foreman = site.manage("runsnappea")
    assert_it_still_works(site)
    raise_it.delay("ValueError")
    leak_plain_transaction.delay("x")
    assert_it_still_works(site)
    site.wait_until_empty()
    assert site.counts() == {"failed": 1}
    assert foreman.stop() == 0


def test_an_output_that_nobody_reads(site: Site) -> None:
    reader, writer = os.pipe()
    foreman = subprocess.Popen(
        [sys.executable, "-m", "django", "runsnappea"], env=site.environment(), stdout=writer, stderr=writer
    )
    os.close(writer)
    os.close(reader)
    try:
        record.delay("x")
        wait_until(lambda: site.ledger.count("end", "x"))
        site.wait_until_empty()
        foreman.terminate()
        assert foreman.wait(DEADLINE) == 0
        assert site.counts() == {}
    finally:
        foreman.kill()


# what tasks do


def test_whatever_a_task_raises(site: Site) -> None:
    site.foreman(NUM_WORKERS=1)
    names = [
        "SystemExit",
        "KeyboardInterrupt",
        "GeneratorExit",
        "RecursionError",
        "MemoryError",
        "BaseException",
    ]
    raise_it.delay_many((name,) for name in names)
    assert_it_still_works(site)
    assert [row.status for row in Task.objects.all()] == ["failed"] * len(names)
    for name, row in zip(names, Task.objects.order_by("id"), strict=True):
        assert name in row.error


def test_an_exception_that_cannot_be_shown(site: Site) -> None:
    foreman = site.foreman(NUM_WORKERS=1)
    raise_unprintable.delay()
    assert_it_still_works(site)
    assert "Unprintable" in Task.objects.get().error
    foreman.wait_for_output("Failed .*raise_unprintable .*: Unprintable")


def test_rows_that_name_no_task(site: Site) -> None:
    foreman = site.foreman(NUM_WORKERS=1)
    names = [
        "os.system",
        "builtins.exit",
        "tests.planted.run",
        "tests.playground.ledger.note",
        "no_dots",
        "",
        "a..b",
    ]
    for name in names:
        Task.objects.create(task_name=name, args=["true"])
    assert_it_still_works(site)
    for name, row in zip(names, Task.objects.order_by("id"), strict=True):
        assert row.status == "failed" and f"Unknown task {name!r}" in row.error
    assert len(re.findall("Failed .* UnknownTask", foreman.output())) == len(names)
    assert not (site.directory / "planted").exists()


def test_a_task_that_is_deployed_later_can_be_requeued(site: Site) -> None:
    early = site.foreman()
    Task.objects.create(task_name="tests.playground.tasks.newly_deployed", args=["x"])
    wait_until(lambda: site.counts() == {"failed": 1})
    assert early.stop() == 0
    site.variables["SNAPPEA_TEST_DEPLOYED"] = "yes"
    site.foreman()
    assert operations.requeue(Task.objects.filter(status="failed")) == 1
    wait_until(lambda: site.ledger.count("end", "x"))


def test_rows_that_cannot_be_read(site: Site) -> None:
    site.foreman(NUM_WORKERS=1)
    texts = [
        ("{", "{}"),
        ("{}", "{}"),
        ("[]", "[]"),
        ("[" * 5000, "{}"),
        ("", "{}"),
        ('"x"', "{}"),
        ("[1]", ""),
    ]
    for args, kwargs in [*texts, ("[1, 2]", "{}"), ("[]", '{"no": 1}')]:
        Task.objects.create(task_name=record.name, args=args, kwargs=kwargs)
    assert_it_still_works(site)
    rows = list(Task.objects.order_by("id"))
    assert [row.status for row in rows] == ["failed"] * (len(texts) + 2)
    assert [(row.args, row.kwargs) for row in rows][: len(texts)] == texts
    for row in rows:
        assert ("TypeError" if row.id > len(texts) else "UnreadableArguments") in row.error


@pytest.mark.parametrize("key", ["return", "raise"])
def test_a_task_that_forks(site: Site, key: str) -> None:
    foreman = site.foreman(NUM_WORKERS=1)
    for number in range(5):
        record.delay(f"before-{number}")
    fork.delay(key)
    for number in range(5):
        record.delay(f"after-{number}")
    site.wait_until_empty()
    wait_until(lambda: site.ledger.count("child", key))
    assert_it_still_works(site)
    assert set(site.ledger.keys("start").values()) == set(site.ledger.keys("end").values()) == {1}
    assert foreman.stop() == 0
    assert site.counts() == {} and site.sql("PRAGMA integrity_check") == [("ok",)]


def test_a_forked_child_does_not_keep_the_lock(site: Site) -> None:
    foreman = site.foreman(NUM_WORKERS=1)
    fork_and_stay.delay("x", str(site.directory / "go"))
    wait_until(lambda: site.ledger.count("child", "x"))
    foreman.kill()
    site.foreman()
    assert_it_still_works(site)
    (site.directory / "go").touch()
    wait_until(lambda: site.ledger.count("gone", "x"))


@pytest.mark.parametrize("leak", [leak_transaction, leak_plain_transaction])
def test_a_task_that_leaves_a_transaction_open(site: Site, leak: object) -> None:
    foreman = site.foreman(NUM_WORKERS=2)
    for number in range(4):
        leak.delay(f"leak-{number}")  # type: ignore[attr-defined]
    assert_it_still_works(site)
    site.wait_until_empty()
    foreman.wait_for_output("A task left a transaction open on 'snappea'; it is rolled back")
    assert site.counts() == {}
    with connections["default"].cursor() as cursor:
        assert "leaked" not in connections["default"].introspection.table_names(cursor)


def test_a_connection_that_cannot_be_closed(site: Site) -> None:
    foreman = site.foreman(NUM_WORKERS=1)
    break_connection.delay("x")
    assert_it_still_works(site)
    foreman.wait_for_output("Could not clean up the connection 'default': ZeroDivisionError")


def test_tasks_that_enqueue_tasks(site: Site) -> None:
    site.foreman(NUM_WORKERS=4)
    for number in range(10):
        enqueue_more.delay(f"parent-{number}", 20)
    wait_until(lambda: len(site.ledger.keys("end")) == 200)
    site.wait_until_empty()
    assert set(site.ledger.keys("end").values()) == {1}
