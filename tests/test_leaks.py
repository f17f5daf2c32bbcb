"""A long-running Foreman must not accumulate memory, threads, descriptors or write-ahead log."""

import contextlib
from pathlib import Path

import pytest

from snappea.models import Task
from tests.playground import isolated
from tests.playground.coroutines import few_at_a_time, use_orm
from tests.playground.lifecycle import add, fail_until
from tests.playground.limited import spin
from tests.playground.tasks import enqueue_more, fail, leak_transaction, nothing, record, record_async
from tests.site import Process, Site, wait_until

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("executed")]


def _holdings(foreman: Process) -> tuple[int, int, int]:
    """Return threads, descriptors, and resident memory in kB."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{foreman.pid}/status").read_text().splitlines())
    descriptors = len(list(Path(f"/proc/{foreman.pid}/fd").iterdir()))
    return int(status["Threads"]), descriptors, int(status["VmRSS"].split()[0])


def _load(site: Site, rounds: int) -> None:
    """Run tasks of all kinds, 3000 a round."""
    for number in range(rounds):
        nothing.delay_many(() for _ in range(2900))
        for key in range(10):
            record.delay(key)
            record_async.delay(key)
            use_orm.delay(0)
            fail.delay(key)
            fail_until.delay(f"again-{number}-{key}", 2)
            few_at_a_time.delay(str(key))
            add.delay(key, key)
        isolated.nothing.delay_many(() for _ in range(5))
        isolated.die.delay("x", "segfault")
        spin.delay("x")
        leak_transaction.delay(number)
        enqueue_more.delay("more", 20)
    wait_until(lambda: not {"ready", "running", "scheduled"} & set(site.counts()))
    Task.objects.all().delete()


def test_fifty_thousand_tasks_of_all_kinds_leave_nothing_behind(site: Site) -> None:
    foreman = site.foreman("-v0", NUM_WORKERS=4)
    for _ in range(2):
        _load(site, 3)
    threads, descriptors, memory = _holdings(foreman)
    children = len(_descendants(foreman.pid))
    for _ in range(4):
        _load(site, 3)
    wait_until(lambda: _holdings(foreman)[0] <= threads)
    wait_until(lambda: len(_descendants(foreman.pid)) <= children)
    _threads, descriptors_after, memory_after = _holdings(foreman)
    assert descriptors_after <= descriptors + 12  # each worker may hold one more connection to each database
    assert memory_after <= memory * 1.1


def _descendants(pid: int) -> list[str]:
    """Return the pids of a process's children, and of theirs."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += (task / "children").read_text().split()
        except OSError:  # it has just ended
            pass
    return [*found, *(one for child in found for one in _descendants(int(child)))]


def test_the_write_ahead_log_is_bounded(site: Site) -> None:
    foreman = site.foreman()
    wal = Path(f"{site.database}-wal")
    largest = 0
    for _ in range(20):
        nothing.delay_many(() for _ in range(2000))
        largest = max(largest, wal.stat().st_size)
        site.wait_until_empty()
    assert largest < 32 * 1024 * 1024
    wait_until(lambda: wal.stat().st_size <= 8 * 1024 * 1024, "the write-ahead log to be cut off")
    assert foreman.popen.poll() is None


def test_connections_of_idle_workers_are_closed(site: Site) -> None:
    """So that databases can be checkpointed. SQLite keeps the database's own descriptor for reuse."""
    foreman = site.hasty_foreman(threads__IDLE_AFTER=4)

    def open_logs() -> list[str]:
        logs = []
        for path in Path(f"/proc/{foreman.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it has just been closed
                logs.append(str(path.readlink()))
        return [link for link in logs if link.endswith("-wal")]

    own = len(open_logs())
    record.delay("x")
    enqueue_more.delay("more", 1)
    site.wait_until_empty()
    assert len(open_logs()) > own
    wait_until(lambda: len(open_logs()) == own, "the workers' connections to be closed")
