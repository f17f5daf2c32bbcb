"""ring() and the FileBell."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import inotify_simple
import pytest
from django.db import transaction

from snappea import log
from snappea.models import Task
from snappea.queue.database import connect, file_of, ring
from snappea.queue.files import QueueFile
from snappea.queue.wakeup import FileBell
from tests.playground.tasks import nothing, record
from tests.site import DEADLINE, Site


@pytest.fixture(params=[True, False], ids=["inotify", "polling"])
def bell(request: pytest.FixtureRequest, site: Site, settings: Any) -> Iterator[FileBell]:
    settings.SNAPPEA = site.settings | {"USE_INOTIFY": request.param, "POLL_INTERVAL": 0.01}
    file = file_of(connect())
    assert file
    bell = FileBell(file)
    bell.wait(0)
    yield bell
    bell.close()


def rings_soon(bell: FileBell) -> bool:
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if bell.wait(bell.patience):
            return True
    return False


def test_a_ring_is_heard(site: Site, bell: FileBell) -> None:
    assert not bell.wait(0.01)
    ring(file_of(connect()))
    assert rings_soon(bell)
    assert not bell.wait(0.01)


def test_a_ring_before_the_wait_is_heard(bell: FileBell) -> None:
    for _ in range(3):
        ring(file_of(connect()))
    time.sleep(0.01)
    assert rings_soon(bell)


def test_a_nudge_ends_the_wait_and_is_no_ring(bell: FileBell) -> None:
    threading.Timer(0.05, bell.nudge).start()
    before = time.monotonic()
    assert not bell.wait(2 * DEADLINE)
    assert time.monotonic() - before < DEADLINE


def test_any_number_of_nudges_is_borne(bell: FileBell) -> None:
    for _ in range(100_000):
        bell.nudge()
    assert not bell.wait(1)
    assert not bell.wait(0.01)


def test_rings_can_be_left_for_later(bell: FileBell) -> None:
    ring(file_of(connect()))
    assert not bell.wait(0.01, for_rings=False)
    assert rings_soon(bell)


def test_every_way_to_enqueue_rings_once_it_is_committed(site: Site, bell: FileBell) -> None:
    for enqueue in (
        nothing.delay,
        lambda: nothing.delay_many([(), ()]),
        nothing.delay_on_commit,
        lambda: Task.objects.create(task_name="x"),
    ):
        enqueue()
        assert rings_soon(bell)
    with transaction.atomic(using="snappea"):
        record.delay("x")
        Task.objects.create(task_name="x")
        assert not bell.wait(0.02)
    assert rings_soon(bell)


def test_one_wakeup_for_many(site: Site, bell: FileBell, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.stat(f"{site.database}-wakeup").st_mtime_ns
    touched: list[Any] = []
    touch = os.utime

    def count(*args: Any, **kwargs: Any) -> None:
        touched.append(args)
        touch(*args, **kwargs)

    monkeypatch.setattr(os, "utime", count)
    nothing.delay_many(() for _ in range(100))
    assert len(touched) == 1 and os.stat(f"{site.database}-wakeup").st_mtime_ns > before


def test_the_file_is_put_back(bell: FileBell) -> None:
    file = file_of(connect())
    assert file
    os.unlink(file.wakeup)
    while bell.wait(0.01):
        pass
    bell.install()
    assert os.path.exists(file.wakeup)
    bell.wait(0)
    ring(file)
    assert rings_soon(bell)


def test_an_overflow_of_the_kernels_queue_is_a_ring(site: Site) -> None:
    file = file_of(connect())
    assert file
    bell = FileBell(file)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for _ in range(limit // 2 + 10):
        os.rename(file.wakeup, f"{file.wakeup}-2")
        os.utime(f"{file.wakeup}-2")
        os.rename(f"{file.wakeup}-2", file.wakeup)
    assert bell.wait(0)
    while bell.wait(0):
        pass
    ring(file)
    assert bell.wait(10)
    bell.close()


def test_ringing_never_raises(site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ring(None)
    ring(QueueFile(str(tmp_path / "no" / "such"), 0, 0))
    assert not caplog.records, "no Foreman was ever started: nothing to say"
    (tmp_path / "file").touch()
    log._said_until.clear()
    for _ in range(3):
        ring(QueueFile(str(tmp_path / "file" / "below"), 0, 0))
    assert len(caplog.records) == 1 and "Cannot touch" in caplog.text


def test_enqueuing_works_without_a_wakeup_file(site: Site) -> None:
    Path(f"{site.database}-wakeup").mkdir()
    nothing.delay()
    assert site.counts() == {"ready": 1}


def test_a_bell_leaves_no_descriptor_behind(site: Site) -> None:
    file = file_of(connect())
    assert file
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        FileBell(file).close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("call", "number", "limit"),
    [
        ("add_watch", errno.ENOSPC, "fs.inotify.max_user_watches"),
        ("__init__", errno.EMFILE, "fs.inotify.max_user_instances"),
    ],
)
def test_what_inotify_lacks_is_named(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
    number: int,
    limit: str,
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(log, "_said_until", {})
    monkeypatch.setattr(inotify_simple.INotify, call, refuse)
    file = file_of(connect())
    assert file
    bell = FileBell(file)
    assert limit in caplog.text
    assert (bell.kind, bell.patience) == ("polling", 0.05)
    bell.close()
