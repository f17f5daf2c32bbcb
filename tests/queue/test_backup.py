"""Backups and the queue's files, as the manual describes them, on databases in use."""

import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from django.core.management import call_command

from snappea.foreman import sqlite_host
from snappea.foreman.sqlite_host import readers
from snappea.queue.database import connect, file_of
from tests.playground.tasks import echo, nap, record
from tests.site import Process, Site, wait_until

pytestmark = pytest.mark.long

MEGABYTE = 1024 * 1024
#: Reads a database, and goes on reading until its input ends.
READER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN")
db.execute("SELECT count(*) FROM snappea_task").fetchone()
print("reading", flush=True)
sys.stdin.read()
"""
#: Copies a database while others use it.
BACKUP = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as source, sqlite3.connect(sys.argv[2]) as copy:
    source.backup(copy)
"""
WAYS = {
    "Connection.backup": [sys.executable, "-c", BACKUP, "{source}", "{copy}"],
    "sqlite3 .backup": ["sqlite3", "{source}", ".backup '{copy}'"],
    "VACUUM INTO": ["sqlite3", "{source}", "VACUUM INTO '{copy}'"],
}
#: Enqueues as fast as it can, until it is ended; how many there are by now is in its output.
ENQUEUER = """
import itertools
for number in itertools.count():
    record.delay(f"busy-{number}")
    print(number, flush=True)
"""


def numbers(site: Site) -> set[int]:
    return {int(key.partition("-")[2]) for key in site.ledger.keys("end") if key.startswith("busy-")}


@pytest.mark.needs("sqlite3")
@pytest.mark.parametrize("way", WAYS)
def test_a_copy_made_at_work_is_whole_and_can_be_served(site: Site, way: str) -> None:
    foreman = site.foreman()
    nap.delay("at-work", 60)
    record.apply_async(("later",), countdown=3600)
    enqueuer = site.program(ENQUEUER)
    wait_until(lambda: len(numbers(site)) > 200)
    copy = site.directory / "copy.sqlite3"
    ran_before = numbers(site)
    subprocess.run([word.format(source=site.database, copy=copy) for word in WAYS[way]], check=True)
    enqueuer.wait_for_output(rf"\n{int(enqueuer.output().split()[-2]) + 50}\n")
    enqueuer.kill()
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        waiting = {args for (args,) in db.execute("SELECT args FROM snappea_task WHERE status = 'ready'")}
        kept = db.execute("SELECT args FROM snappea_task WHERE status <> 'ready' ORDER BY id").fetchall()
    assert not waiting & {f'["busy-{number}"]' for number in ran_before}, "it is not from before"
    assert ('["at-work",60]',) in kept and ('["later"]',) in kept
    foreman.kill()
    restored(site, copy)
    assert set(site.counts()) == {"interrupted", "scheduled"}


def restored(site: Site, copy: Path) -> Process:
    """Follow the manual, and wait until the queue is empty."""
    for suffix in ("", "-wal", "-shm", "-logbook"):
        Path(f"{site.database}{suffix}").unlink(missing_ok=True)
    shutil.copy(copy, site.database)
    foreman = site.foreman()
    site.wait_until_empty()
    return foreman


def test_a_copy_is_served_beside_the_original(site: Site) -> None:
    """A copy has its own files, and its own Foreman."""
    record.delay("x")
    subprocess.run([sys.executable, "-c", BACKUP, site.database, site.directory / "copy.sqlite3"], check=True)
    site.foreman()
    site.wait_until_empty()
    site.variables["SNAPPEA_TEST_DATABASE"] = str(site.directory / "copy.sqlite3")
    site.foreman()
    wait_until(lambda: site.ledger.count("end", "x") == 2)


def test_what_ran_when_the_copy_was_made_is_interrupted_there(site: Site) -> None:
    """A newer logbook must not make it look as if it had never begun."""
    site.foreman()
    nap.delay("x", 60)
    wait_until(lambda: site.ledger.count("start", "x"))
    copy = site.directory / "copy.sqlite3"
    subprocess.run([sys.executable, "-c", BACKUP, site.database, copy], check=True)
    site.processes[0].kill()
    site.foreman()
    record.delay("y")
    site.wait_until_empty()
    site.processes[1].kill()
    restored(site, copy)
    assert site.counts() == {"interrupted": 1} and site.ledger.count("start", "x") == 1


def test_an_upgrade_of_the_tables_at_work(site: Site) -> None:
    """`migrate` is safe while the Foreman works, if there is nothing to migrate."""
    site.foreman()
    call_command("migrate", using="snappea", verbosity=0)
    record.delay("x")
    wait_until(lambda: site.ledger.count("end", "x"))


# the write-ahead log


def reader(site: Site) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-c", READER, site.database], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout and process.stdout.readline() == b"reading\n"
    return process


def test_who_reads_is_found(site: Site) -> None:
    file = file_of(connect())
    assert file
    record.delay("x")
    assert readers(file) == []
    process = reader(site)
    assert readers(file) == [process.pid]
    process.communicate()
    assert readers(file) == []


def test_a_reader_that_does_not_end_is_named_in_the_log(site: Site) -> None:
    foreman = site.hasty_foreman(sqlite_host__LARGE_WAL=200_000, sqlite_host__HELD_AFTER=2.0)
    wal = Path(f"{site.database}-wal")
    process = reader(site)
    for _ in range(30):
        echo.delay("x" * 100_000)
    found = foreman.wait_for_output(
        r"WARNING The write-ahead log has grown to (\d+) MB and could not be checkpointed for (\d+) s: a "
        rf"long-running read blocks the checkpoint \(pid {process.pid}\)\."
    )
    assert int(found[1]) >= 2 and int(found[2]) >= 2
    process.communicate()
    foreman.wait_for_output("INFO The write-ahead log could be checkpointed again")
    wait_until(lambda: wal.stat().st_size <= 200_000, "it to be cut off")
    time.sleep(sqlite_host.LOOK_EVERY + 0.5)
    assert foreman.output().count("The write-ahead log") == 2, "each is said once"
    assert foreman.stop() == 0


def test_readers_that_end_are_not_worth_a_word(site: Site) -> None:
    foreman = site.hasty_foreman(sqlite_host__LARGE_WAL=200_000, sqlite_host__HELD_AFTER=30.0)
    process = reader(site)
    for _ in range(5):
        echo.delay("x" * 100_000)
    time.sleep(2 * sqlite_host.LOOK_EVERY)
    process.communicate()
    wal = Path(f"{site.database}-wal")
    wait_until(lambda: wal.stat().st_size <= 200_000, "it to be cut off")
    assert "write-ahead log" not in foreman.output()


def test_the_log_stays_bounded_under_load(site: Site) -> None:
    """The Foreman checkpoints under constant load. Alone, a process that enqueues does so at 64 MB."""
    site.foreman()
    wal, largest = Path(f"{site.database}-wal"), 0
    for _ in range(400):
        echo.delay("x" * 200_000)
        largest = max(largest, wal.stat().st_size)
    assert largest < 32 * MEGABYTE
    site.wait_until_empty()
    wait_until(lambda: wal.stat().st_size <= 8 * MEGABYTE, "it to be cut off")


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_database_that_goes_takes_the_foreman_with_it(site: Site, how: str) -> None:
    """In an orderly way, with a clear message; and no call is lost."""
    foreman = site.hasty_foreman(sqlite_host__IDLE_LOOK_EVERY=1.0)
    record.delay("before")
    wait_until(lambda: site.ledger.count("end", "before"))
    spare = site.directory / "spare.sqlite3"
    shutil.copy(site.database, spare)
    for suffix in ("", "-wal", "-shm"):
        Path(f"{site.database}{suffix}").unlink()
    if how == "replaced":
        spare.rename(site.database)
        record.delay("after")
        assert site.counts()["ready"] >= 1, "it stands in the new one"
    else:
        with pytest.raises(Exception, match=r"not enqueued: .* is not migrated.*Nothing was written"):
            record.delay("after")
    assert foreman.wait() == 1
    assert f"Stopping: {site.database} was deleted or replaced" in foreman.output()
    if how == "replaced":
        site.foreman()
        wait_until(lambda: site.ledger.count("end", "after"))
