"""One Foreman per queue."""

import os
from pathlib import Path

import pytest

from snappea.database import QueueFile, connect, file_of
from snappea.errors import CannotStart
from snappea.lock import Lock
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
