"""One Foreman per queue."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from snappea.errors import CannotStart
from snappea.queue.database import connect, file_of
from snappea.queue.files import QueueFile
from snappea.queue.lock import Lock, holder, require_same
from tests.site import Site


@pytest.fixture
def file(site: Site) -> QueueFile:
    found = file_of(connect())
    assert found
    return found


def test_the_second_one_is_told_who_holds_it(file: QueueFile) -> None:
    first = Lock(file)
    with pytest.raises(
        CannotStart, match=rf"Another Foreman is at work on .*: pid {os.getpid()} on .*, since 20"
    ):
        Lock(file)
    first.close()
    Lock(file).close()


def test_it_ends_with_the_process(file: QueueFile) -> None:
    if (child := os.fork()) == 0:
        Lock(file)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert f"pid {child} " in Path(file.lock).read_text()
    Lock(file).close()


@pytest.mark.parametrize("stuck", [0, 300])
def test_what_a_dead_holder_left_is_waited_for(file: QueueFile, stuck: int) -> None:
    """Even if the note is long: with so many stuck tasks, it has more than 3,000 bytes."""
    reader, writer = os.pipe()
    if (holder := os.fork()) == 0:
        Lock(file).tell(workers=stuck, stuck=[10**9 + task_id for task_id in range(stuck)])
        if os.fork() == 0:  # inherits the lock, and holds it until told
            os.read(reader, 1)
        os.kill(os.getpid(), 9)
    os.waitpid(holder, 0)
    began = time.monotonic()
    threading.Timer(0.3, os.write, (writer, b"x")).start()
    Lock(file).close()
    assert time.monotonic() - began >= 0.3


def test_what_a_dead_holder_left_is_not_waited_for_without_end(
    file: QueueFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snappea.queue.lock.PATIENCE", 0.2)
    reader, writer = os.pipe()
    if (holder := os.fork()) == 0:
        Lock(file)
        if os.fork() == 0:
            os.close(writer)
            os.read(reader, 1)
        os.kill(os.getpid(), 9)
    os.waitpid(holder, 0)
    with pytest.raises(CannotStart, match=f"Another Foreman is at work on .*: pid {holder} on "):
        Lock(file)
    os.close(writer)


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_closed_descriptor_ends_the_process_even_if_another_file_has_it(
    file: QueueFile, is_taken: bool
) -> None:
    lock = Lock(file)
    require_same(lock.descriptor, lock.identity)
    if (child := os.fork()) == 0:
        lock.close()
        if is_taken:
            os.dup2(os.open("/dev/null", os.O_RDONLY), lock.descriptor)
        require_same(lock.descriptor, lock.identity)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    lock.close()


def test_a_lock_whose_file_was_removed_or_replaced_is_lost(file: QueueFile) -> None:
    lock = Lock(file)
    assert not lock.is_lost()
    os.unlink(file.lock)
    assert lock.is_lost()
    Path(file.lock).touch()
    assert lock.is_lost()
    lock.close()


def test_a_lock_file_that_cannot_be_opened(file: QueueFile) -> None:
    Path(file.lock).mkdir()
    with pytest.raises(CannotStart, match=r"Cannot open .*-lock"):
        Lock(file)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare")
def test_the_lock_is_believed_where_its_pid_means_another_process(file: QueueFile) -> None:
    """As in the containers of a pod: the same host name and volume, but other pids."""
    lock = Lock(file)
    lock.tell(workers=3)
    try:
        look = f"""
from snappea.queue.files import QueueFile
from snappea.queue.lock import holder
found = holder(QueueFile({file.path!r}, {file.device}, {file.inode}))
print(found.pid, found.workers, found.is_here)
"""
        done = subprocess.run(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", look],
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
            capture_output=True,
            text=True,
        )
        assert done.stdout == f"{os.getpid()} 3 False\n", done.stderr
        here = holder(file)
        assert here and here.is_here
    finally:
        lock.close()
    assert holder(file) is None


def test_any_number_of_stuck_workers_is_told(file: QueueFile) -> None:
    lock = Lock(file)
    stuck = list(range(10**9, 10**9 + 5000))
    lock.tell(workers=5001, stuck=stuck)
    found = holder(file)
    assert found and (found.workers, found.stuck) == (5001, stuck)
    lock.tell(workers=5001, stuck=[])
    found = holder(file)
    assert found and found.stuck == []
    lock.close()
