"""Writers take turns. With FULL the log is synced after the turn, and before anything is told."""

import fcntl
import os
import re
import signal
from pathlib import Path

import pytest
from django.db.backends.signals import connection_created

from snappea.queue.database import connect, transact, writing
from tests.playground.tasks import record
from tests.site import Process, Site

TOLD = "os.write(1, b'told')\n"
ONE_BY_ONE = f"import os\nnothing.delay()\n{TOLD}for _ in range(10):\n    nothing.delay()\n    {TOLD}"
CALLS = "trace=pwrite64,fdatasync,fsync,utimensat,write,fcntl,flock"
IN_TURN = "with writing(connect()):\n    os.write(1, b'in turn')\n    "


def traced(site: Site, inject: str = "") -> list[str]:
    """Return what runs a program under strace."""
    options = ["-f", "-qq", "-y", "-o", str(site.directory / "trace"), "-e", CALLS]
    return ["strace", *options, *(["-e", f"inject={inject}"] if inject else [])]


def events(site: Site) -> str:
    """Return a letter for each event of a trace, in order.

    e: a turn begins. w: a write to the log. u: the write lock is released. l: the turn ends. s: a sync of the
    log. r: a wakeup. t: "told" is printed. b: a task has begun.
    """
    kinds = {
        "e": r"flock\(\d+<[^>]*-wal>, LOCK_EX\|LOCK_NB\) = 0",
        "l": r"flock\(\d+<[^>]*-wal>, LOCK_UN\)",
        "w": r"pwrite64\(\d+<[^>]*-wal>",
        "s": r"f(data)?sync\(\d+<[^>]*-wal>",
        "u": r"fcntl\(\d+<[^>]*-shm>, F_SETLK, \{l_type=F_UNLCK, [^}]*l_start=120, l_len=1\}",
        "r": r"utimensat\([^,]*, [^,]*-wakeup\"",
        "t": r"write\(1<[^>]*>, \"told",
        "b": r"write\(\d+<[^>]*ledger>, \"[\d.]+ start",
    }
    pattern = re.compile("|".join(f"(?P<{kind}>{call})" for kind, call in kinds.items()))
    found = map(pattern.search, (site.directory / "trace").read_text().splitlines())
    return "".join(match.lastgroup or "" for match in found if match)


@pytest.fixture(autouse=True)
def full(site: Site) -> None:
    """Use the default."""
    site.settings["SYNCHRONOUS"] = "FULL"


def run(site: Site, code: str, inject: str = "") -> Process:
    process = site.program(code, wrapper=traced(site, inject=inject))
    assert process.wait() == 0, process.output()
    return process


@pytest.mark.needs("strace")
def test_delay_syncs_without_the_lock_before_it_rings_and_returns(site: Site) -> None:
    site.foreman()  # so that there is a wakeup file
    run(site, ONE_BY_ONE)
    _first, *later = events(site).split("t")[:-1]
    assert len(later) == 10
    for call in later:
        assert re.fullmatch("ew+u+ls+r", call), call


@pytest.mark.needs("strace")
@pytest.mark.parametrize(
    "call",
    [
        "nothing.delay_many([()] * 3)",
        "nothing.apply_async(countdown=60)",
        "one.delay(1)",  # writes nothing, but another process may not have synced its identical call yet
        "with batch(): nothing.delay()",
        "pause('mail')",
        "requeue(Task.objects.filter(status='scheduled'))",
        "cancel(Task.objects.filter(task_name=one.name))",
        "Task.objects.create(task_name=nothing.name)",
        "schedules.pause('hourly')",
    ],
)
def test_every_call_that_writes_syncs_before_it_returns(site: Site, call: str) -> None:
    run(
        site,
        f"""
import os
from snappea import batch, schedules, task
from snappea.models import Task
from snappea.queue import cancel, pause, requeue
one = task(unique=True)(record.function)
one.delay(1)
nothing.apply_async(countdown=60)
os.write(1, b"told")
{call}
os.write(1, b"told")
""",
    )
    _before, after, _end = events(site).split("t")
    assert after.rstrip("ur").endswith("s"), after


@pytest.mark.needs("strace")
@pytest.mark.parametrize(
    "code",
    [
        "with transaction.atomic(using='snappea'):\n    nothing.delay()",
        "with transaction.atomic(using='snappea', durable=True):\n    Task.objects.create(task_name='x')",
        "Task.objects.create(task_name='x')",
        "db.cursor().execute('BEGIN')\nnothing.delay()\ndb.cursor().execute('COMMIT')",
        "db.set_autocommit(False)\nnothing.delay()\ndb.commit()",
        "db.set_autocommit(False)\nwith transaction.atomic(using='snappea', savepoint=False):\n"
        "    nothing.delay_many([(), ()])\ndb.commit()",
    ],
)
def test_what_django_commits_is_synced_too(site: Site, code: str) -> None:
    before = "import os\nfrom django.db import connections, transaction\nfrom snappea.models import Task\n"
    before += f"db = connections['snappea']\nnothing.delay()\n{TOLD}"
    run(site, f"{before}{code}\n{TOLD}db.set_autocommit(True)\nnothing.delay()\n{TOLD}")
    _first, djangos, ours, _end = events(site).replace("r", "").split("t")
    assert re.fullmatch("w+su+", djangos.replace("l", "")), "by SQLite, in the commit"
    assert re.fullmatch("ew+u+ls+", ours)


def test_a_project_may_use_a_connection_that_is_being_opened_again(site: Site) -> None:
    run = lambda connection, **kwargs: connection.cursor().execute("PRAGMA cache_size")  # noqa: E731
    record.delay(1)
    connect().close()
    connection_created.connect(run)
    connection_created.receivers.insert(0, connection_created.receivers.pop())
    try:
        record.delay(2)
    finally:
        connection_created.disconnect(run)
    assert site.counts() == {"ready": 2}


@pytest.mark.needs("strace")
def test_normal_syncs_nothing(site: Site) -> None:
    site.settings["SYNCHRONOUS"] = "NORMAL"
    run(site, ONE_BY_ONE)
    _first, *later = events(site).split("t")[:-1]
    assert len(later) == 10 and all(re.fullmatch("ew+u+lr?", call) for call in later)


@pytest.mark.needs("strace")
def test_a_claim_is_synced_before_its_task_starts(site: Site) -> None:
    foreman = site.foreman(wrapper=traced(site))
    for key in range(5):
        record.delay(key)
        site.wait_until_empty()
    assert foreman.stop() == 0
    before_each = events(site).split("b")[:-1]
    assert len(before_each) == 5
    for events_before in before_each:
        assert re.search("s[^w]*$", events_before), before_each  # the next round may have begun


@pytest.mark.needs("strace")
def test_a_sync_that_fails_is_told_and_made_good(site: Site) -> None:
    """The call may be there, and what is enqueued later is on the disk."""
    code = f"""
import os
from snappea.errors import EnqueueError
nothing.delay()
{TOLD}
try:
    nothing.delay()
except EnqueueError as error:
    print(error, flush=True)
{TOLD}nothing.delay()
{TOLD}"""
    # the first three are those of the first call: the log's header, its directory, and the commit
    process = run(site, code, inject="fdatasync:error=EIO:when=4")
    assert "was not enqueued: " in process.output() and "disk I/O error" in process.output()
    assert "It may be enqueued anyway." in process.output()
    assert site.counts() == {"ready": 3}
    _first, refused, good, _end = events(site).split("t")
    assert re.fullmatch("ew+u+ls", refused), "no bell"
    assert re.fullmatch("ew+u+ls.*us+r?", good), "and the log started over"


@pytest.mark.needs("strace")
def test_a_disk_that_does_not_sync_the_rounds_of_the_foreman(site: Site) -> None:
    for key in range(30):
        record.delay(key)
    inject = "fdatasync:error=EIO:when=6..16"
    foreman = site.foreman(wrapper=traced(site, inject=inject))
    foreman.wait_for_output("The round failed: .*not synced|The round failed: .*disk I/O error")
    record.delay("later")
    site.wait_until_empty()
    assert site.counts() == {}
    assert len(site.ledger.keys("start")) == 31 and set(site.ledger.keys("start").values()) == {1}
    assert foreman.stop() == 0


def test_a_descriptor_that_is_another_file_is_not_synced_for_the_log(site: Site) -> None:
    process = site.program("""
import os
from snappea.errors import EnqueueError
nothing.delay()
logs = [int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]
logs = [number for number in logs if os.readlink(f"/proc/self/fd/{number}").endswith("-wal")]
os.close(max(logs))
assert os.open(os.devnull, os.O_RDONLY) == max(logs)
try:
    nothing.delay()
except EnqueueError as error:
    print(error)
""")
    assert process.wait() == 0, process.output()
    assert "It may be enqueued anyway." in process.output()
    assert site.counts() == {"ready": 2}


# turns


def in_turn(site: Site, code: str = "signal.pause()") -> Process:
    """Start a process that runs code in its turn, and wait until it is there."""
    imports = "import os, signal, threading\nfrom snappea.queue.database import connect, writing\n"
    process = site.program(f"{imports}{IN_TURN}{code}")
    process.wait_for_output("in turn")
    return process


def is_somebodys_turn(database: Path) -> bool:
    log = os.open(f"{database}-wal", os.O_RDONLY)
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(log)
    return False


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
def test_a_kill_ends_a_turn_even_if_there_is_a_child(site: Site, synchronous: str) -> None:
    site.settings["SYNCHRONOUS"] = synchronous
    code = "child = os.fork()\n    if child: print(f' {child}.', flush=True)\n    signal.pause()"
    process = in_turn(site, code)
    child = int(process.wait_for_output(r" (\d+)\.")[1])
    assert is_somebodys_turn(site.database)
    process.kill()
    try:
        assert not is_somebodys_turn(site.database)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_process_that_stops_in_its_turn_only_delays_others(site: Site) -> None:
    process = in_turn(site)
    process.send(signal.SIGSTOP)
    enqueuing = site.program("for _ in range(100):\n    nothing.delay()")
    assert enqueuing.wait() == 0, enqueuing.output()
    assert is_somebodys_turn(site.database)
    process.kill()
    assert site.counts() == {"ready": 100}


def test_threads_take_turns_too_and_none_waits_forever(site: Site) -> None:
    code = "other = threading.Thread(target=nothing.delay)\n    other.start()\n    other.join()"
    assert in_turn(site, code).wait() == 0
    assert site.counts() == {"ready": 1}


def test_a_turn_ends_with_its_block_and_not_with_one_inside(site: Site) -> None:
    with transact(connect()):
        record.delay(1)
        assert is_somebodys_turn(site.database)
    assert not is_somebodys_turn(site.database)
    with pytest.raises(KeyError), writing(connect()):
        assert is_somebodys_turn(site.database)
        raise KeyError
    assert not is_somebodys_turn(site.database)
