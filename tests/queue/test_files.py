"""The database's files are deleted or replaced, or its locks dropped, while it is in use."""

import os
import signal
import stat
import threading
from functools import partial
from pathlib import Path

import pytest

from snappea.errors import EnqueueError
from snappea.queue import rescue
from snappea.queue.database import connect, file_of, leave_lost_files, raw
from snappea.queue.files import is_lost
from tests.playground.tasks import nothing, open_database, record, wait_for
from tests.site import Process, Site, wait_until

pytestmark = pytest.mark.long

#: Enqueues for as long as there is no file, and notes each call that was accepted.
ENQUEUE = """
import os
import signal
from snappea.errors import EnqueueError
from tests.playground.ledger import note
name, until = sys.argv[1:]
number = 0
while not os.path.exists(until):
    try:
        record.delay(f"{name}-{number}")
        note("accepted", f"{name}-{number}")
    except EnqueueError as error:
        print(error)
    number += 1
"""


def replace(path: Path, content: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(content)
    other.replace(path)


def lose(site: Site, how: str) -> None:
    """Do what an operator might do to the files."""
    wal, shm = Path(f"{site.database}-wal"), Path(f"{site.database}-shm")
    match how:
        case "wal deleted":
            wal.unlink()
        case "shm deleted":
            shm.unlink()
        case "both deleted":
            wal.unlink()
            shm.unlink()
        case "wal replaced by a copy":
            replace(wal, wal.read_bytes())
        case "wal replaced by nonsense":
            replace(wal, b"x" * 5000)
        case "wal replaced by nothing":
            replace(wal, b"")


def assert_each_ran_once(site: Site) -> None:
    accepted = site.ledger.keys("accepted")

    def all_ran() -> bool:
        return not accepted - site.ledger.keys("end")

    wait_until(all_ran, f"{len(accepted)} to run: {site.processes[-1].output()[-2000:]}")
    site.wait_until_empty()
    assert set(site.ledger.keys("start").values()) == {1}
    assert site.sql("PRAGMA integrity_check") == [("ok",)]


def start_enqueuing(site: Site, *names: str) -> list[Process]:
    enqueuers = [site.program(ENQUEUE, name, str(site.directory / "enough")) for name in names]
    for name in names:
        wait_until(partial(site.ledger.count, "accepted", f"{name}-20"))
    return enqueuers


def stop_enqueuing(site: Site, enqueuers: list[Process]) -> None:
    (site.directory / "enough").touch()
    assert [enqueuer.wait() for enqueuer in enqueuers] == [0] * len(enqueuers), enqueuers[0].output()


@pytest.mark.parametrize(
    "how",
    ["wal deleted", "shm deleted", "wal replaced by a copy"],
)
def test_nothing_is_lost_while_a_foreman_works(site: Site, how: str) -> None:
    site.database.chmod(0o640)
    foreman = site.foreman()
    wait_for.delay("long", str(site.directory / "go"))
    wait_until(lambda: site.ledger.count("start", "long"))
    enqueuers = start_enqueuing(site, "a", "b")
    lose(site, how)
    foreman.wait_for_output(r"ERROR .*snappea.sqlite3-(wal|shm) was deleted or replaced")
    foreman.wait_for_output("the Foreman continues|exits immediately")
    before = sum(site.ledger.keys("accepted").values())
    wait_until(lambda: sum(site.ledger.keys("accepted").values()) > before + 100)
    (site.directory / "go").touch()
    stop_enqueuing(site, enqueuers)
    if foreman.popen.poll() is not None:
        assert foreman.wait() == 1
        site.foreman()
    record.delay("last")
    wait_until(lambda: site.ledger.count("end", "last"))
    assert_each_ran_once(site)
    assert site.ledger.count("end", "long") == 1
    assert stat.S_IMODE(site.database.stat().st_mode) == 0o640
    assert not list(site.directory.glob("*-rescue*"))


@pytest.mark.parametrize("how", ["both deleted", "wal replaced by nonsense", "wal replaced by nothing"])
def test_nothing_is_lost_without_a_foreman(site: Site, how: str) -> None:
    enqueuers = start_enqueuing(site, "a", "b")
    ids = [nothing.delay().id for _ in range(20)]
    lose(site, how)
    ids += [nothing.delay().id for _ in range(20)]
    assert len(set(ids)) == 40
    stop_enqueuing(site, enqueuers)
    waiting = {args for (args,) in site.sql("SELECT args FROM snappea_task WHERE task_name LIKE '%record'")}
    assert {f'["{key}"]' for key in site.ledger.keys("accepted")} <= waiting
    assert len(site.sql("SELECT id FROM snappea_task WHERE task_name LIKE '%nothing'")) == 40
    site.foreman()
    assert_each_ran_once(site)


def test_a_task_drops_the_locks_by_opening_the_database(site: Site) -> None:
    """Then the next process to close it assumes that it is the last, and deletes the -wal."""
    foreman = site.foreman()
    open_database.delay(str(site.database))
    site.wait_until_empty()
    connect().close()
    foreman.wait_for_output("ERROR .*-wal was deleted or replaced")
    for number in range(3):
        record.delay(number)
        connect().close()
    assert foreman.wait() == 1
    assert "start it again" in foreman.output()
    site.foreman()
    wait_until(lambda: len(site.ledger.keys("end")) == 3)
    site.wait_until_empty()
    assert set(site.ledger.keys("start").values()) == {1}


def test_a_thread_that_keeps_a_lost_index_is_told_of(site: Site) -> None:
    """The threads of a process share one -shm, deleted or not; a request releases it."""
    is_open, may_close, is_closed = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        connect()
        is_open.set()
        may_close.wait(60)
        leave_lost_files()
        connect().close()
        is_closed.set()

    thread = threading.Thread(target=hold)
    thread.start()
    is_open.wait(60)
    nothing.delay()
    with open(site.database, "rb"):
        pass  # the locks are gone: the files there may be newer
    lose(site, "both deleted")
    with pytest.raises(EnqueueError, match="another thread of this process still has the old one open"):
        nothing.delay()
    may_close.set()
    is_closed.wait(60)
    thread.join()
    nothing.delay()
    assert site.counts()["ready"] >= 1


def test_a_directory_that_changes_is_looked_into(site: Site) -> None:
    file = file_of(connect())
    assert file and not file.is_gone()
    (site.directory / "another").touch()
    assert not file.is_gone()
    os.utime(site.directory, (0, 0))
    lose(site, "wal replaced by a copy")
    assert file.is_gone() and file.lost() == f"{site.database}-wal"


def test_a_file_is_not_lost_because_the_system_cannot_tell(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    assert not is_lost(str(tmp_path / "loop"), (1, 1))
    assert is_lost(str(tmp_path / "missing"), (1, 1)) and is_lost(str(tmp_path / "file" / "x"), (1, 1))
    assert is_lost(str(tmp_path / "file"), (1, 1))


def test_a_foreman_that_does_not_answer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rescue, "LEAVE_TRIES", 2)
    foreman = site.foreman()
    nothing.delay()
    site.wait_until_empty()
    foreman.send(signal.SIGSTOP)
    lose(site, "wal deleted")
    with pytest.raises(EnqueueError, match=r"-wal was deleted or replaced.*the Foreman.*does not answer"):
        nothing.delay()
    foreman.send(signal.SIGCONT)
    foreman.wait_for_output("the Foreman continues")
    record.delay("after")
    wait_until(lambda: site.ledger.count("end", "after"))
    assert raw(connect()).execute("PRAGMA integrity_check").fetchone()[0] == "ok"
