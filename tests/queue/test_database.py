"""The connection: our pragmas, the project's, which take precedence, and the file."""

import os
import stat
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.signals import request_finished
from django.db import connections, transaction

from snappea.queue import database, files, lock, logbook
from snappea.queue.database import connect, file_of, raw
from snappea.queue.files import file_system, open_beside
from tests.playground.tasks import nothing
from tests.site import Site, wait_until


def pragma(name: str) -> Any:
    return raw(connect()).execute(f"PRAGMA {name}").fetchone()[0]


def test_our_pragmas(site: Site, settings: Any) -> None:
    settings.SNAPPEA = {}
    connections["snappea"].close()
    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2, "FULL"
    assert pragma("wal_autocheckpoint") * pragma("page_size") == pragma("journal_size_limit") == 4 * 1024**2
    assert pragma("busy_timeout") == 5000
    assert connect().transaction_mode == "IMMEDIATE"  # type: ignore[attr-defined]


def test_synchronous_is_a_setting(site: Site, settings: Any) -> None:
    settings.SNAPPEA = {"SYNCHRONOUS": "NORMAL"}
    connections["snappea"].close()
    assert pragma("synchronous") == 1
    assert pragma("wal_autocheckpoint") * pragma("page_size") == 64 * 1024**2


@pytest.fixture
def options(site: Site) -> Iterator[dict[str, Any]]:
    """Return the OPTIONS of the queue's database, which a test may change."""
    connections["snappea"].close()
    chosen: dict[str, Any] = connections["snappea"].settings_dict["OPTIONS"]
    yield chosen
    chosen.clear()
    connections["snappea"].close()


def test_what_the_user_sets_wins(options: dict[str, Any]) -> None:
    options.update(
        init_command="PRAGMA synchronous=EXTRA; pragma wal_autocheckpoint = 7;",
        transaction_mode="EXCLUSIVE",
        timeout=1.5,
    )
    assert (pragma("synchronous"), pragma("wal_autocheckpoint"), pragma("busy_timeout")) == (3, 7, 1500)
    assert pragma("journal_mode") == "wal"
    assert connect().transaction_mode == "EXCLUSIVE"  # type: ignore[attr-defined]


def test_other_databases_are_left_alone(site: Site) -> None:
    connections["default"].ensure_connection()
    assert connections["default"].transaction_mode is None  # type: ignore[attr-defined]
    below = connections["default"].connection
    assert below.execute("PRAGMA journal_mode").fetchone()[0] == "delete"


def test_a_write_transaction_begins_as_one(site: Site) -> None:
    """So that it waits for its turn; a reader that becomes a writer is refused at once."""
    with transaction.atomic(using="snappea"):
        other = site.program(
            "connections['snappea'].settings_dict['OPTIONS']['timeout'] = 0.1\nnothing.delay()"
        )
        assert other.wait() == 1 and "database is locked" in other.output()


def test_the_connection_stays_open_between_requests(site: Site) -> None:
    nothing.delay()
    before = raw(connect())
    connect().close_if_unusable_or_obsolete()
    assert raw(connect()) is before


def test_a_replaced_file_is_noticed_by_who_enqueues(site: Site, migrated: Path) -> None:
    nothing.delay()
    file = file_of(connect())
    assert file and not file.is_gone()
    for leftover in site.directory.glob("snappea.sqlite3*"):
        leftover.unlink()
    assert file.is_gone()
    site.database.write_bytes((migrated / "snappea.sqlite3").read_bytes())
    assert file.is_gone()
    nothing.delay()
    assert site.counts() == {"ready": 1}


def test_our_files_lie_beside_the_database_with_its_mode(site: Site) -> None:
    site.database.chmod(0o640)
    site.foreman()
    for suffix in ("wakeup", "lock", "logbook"):
        assert Path(f"{site.database}-{suffix}").stat().st_mode & 0o777 == 0o640


def test_only_regular_files_are_opened(site: Site) -> None:
    file = file_of(connect())
    assert file
    kinds: list[Callable[[str], object]] = [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)]
    if os.geteuid() == 0:
        kinds.append(lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5)))  # /dev/zero
    for make in kinds:
        for path in (file.wakeup, file.lock, file.logbook):
            make(path)
            with pytest.raises(FileExistsError, match="is not a regular file; move it away"):
                open_beside(file, path)
        assert lock.holder(file) is None and logbook.read(file) is None
        nothing.delay()
        for path in (file.wakeup, file.lock, file.logbook):
            os.rmdir(path) if os.path.isdir(path) else os.unlink(path)
    os.link(file.path, file.lock)
    with pytest.raises(FileExistsError, match="is a hard link to another file; move it away"):
        open_beside(file, file.lock)


def test_the_file_system_of_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert file_system("/proc/self") == "proc"
    assert file_system("/nowhere/at/all") == file_system("/")
    assert "nfs4" in files.NETWORK_FILE_SYSTEMS


def test_not_every_thread_keeps_its_connection(site: Site) -> None:
    """Greenlets and the threads of ASGI servers end with their request."""
    are_open, may_end = threading.Barrier(database.RESTING + 5), threading.Barrier(database.RESTING + 5)
    kept = []

    def serve() -> None:
        kept.append(connect().close_at is None)
        are_open.wait(60)
        may_end.wait(60)
        connect().close()

    def has_connected(count: int) -> bool:
        return len(kept) == count

    threads = [threading.Thread(target=serve) for _ in range(database.RESTING + 4)]
    for count, thread in enumerate(threads, 1):
        thread.start()
        wait_until(partial(has_connected, count))  # two at once could both take the last place
    are_open.wait(60)
    may_end.wait(60)
    for thread in threads:
        thread.join()
    assert len(kept) == database.RESTING + 4
    assert 0 < kept.count(True) <= database.RESTING


def test_a_connection_that_closes_with_its_request_leaves_no_descriptor(site: Site) -> None:
    """The greenlet of a request may stay until the collector comes by."""

    def descriptors() -> list[str]:
        links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
        return [link for link in links if link.startswith(str(site.database))]

    connect().close_at = 0.0  # one of many
    assert len(descriptors()) >= 3
    # after Django's own receiver, which test clients take away and add again
    request_finished.disconnect(database.close_with_connection)
    request_finished.connect(database.close_with_connection)
    request_finished.send(sender=None)
    assert descriptors() == []


def test_threads_that_end_leave_no_connection_open(site: Site) -> None:
    """Without the collector, which a short-lived process or a busy server may not reach in time."""
    code = """
import gc, os, threading
gc.disable()
def work(both):
    both.wait()
    nothing.delay()
def run(count):
    both = threading.Barrier(count)
    threads = [threading.Thread(target=work, args=[both]) for _ in range(count)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return len(os.listdir("/proc/self/fd"))
run(2)
print([run(8) for _ in range(4)], "open")
if not os.fork():  # not those of its parent's threads
    nothing.delay()
    os._exit(0)
print("exit code", os.wait()[1])
"""
    process = site.program(code)
    found = process.wait_for_output(r"\[(\d+), (\d+), (\d+), (\d+)\] open")
    process.wait_for_output("exit code 0")
    assert len(set(found.groups())) == 1, found[0]
    assert site.counts() == {"ready": 2 + 4 * 8 + 1} and "Exception" not in process.output()
