"""Durable commits with FULL: the log is synced after the write lock is released, before anything is told."""

import re

import pytest

from tests.playground.tasks import record
from tests.site import Process, Site

TOLD = "os.write(1, b'told')\n"
ONE_BY_ONE = f"import os\nnothing.delay()\n{TOLD}for _ in range(10):\n    nothing.delay()\n    {TOLD}"
CALLS = "trace=pwrite64,fdatasync,fsync,utimensat,write,fcntl"


def traced(site: Site, inject: str = "") -> list[str]:
    """Return what runs a program under strace."""
    options = ["-f", "-qq", "-y", "-o", str(site.directory / "trace"), "-e", CALLS]
    return ["strace", *options, *(["-e", f"inject={inject}"] if inject else [])]


def events(site: Site) -> str:
    """Return a letter for each event of a trace, in order.

    w: a write to the log. s: a sync of it. u: the write lock is released. r: a wakeup. t: "told" is printed.
    b: a task has begun.
    """
    kinds = {
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
        assert re.fullmatch("w+u+s+r", call), call


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
    ],
)
def test_every_call_that_writes_syncs_before_it_returns(site: Site, call: str) -> None:
    run(
        site,
        f"""
import os
from snappea import batch, task
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
def test_what_django_commits_is_synced_too(site: Site) -> None:
    code = "import os\nfrom django.db import transaction\nnothing.delay()\n" + TOLD
    code += f"with transaction.atomic(using='snappea'):\n    nothing.delay()\n{TOLD}"
    run(site, code)
    assert re.fullmatch("w+su+r?", events(site).split("t")[1]), "by SQLite, in the commit"


@pytest.mark.needs("strace")
def test_normal_syncs_nothing(site: Site) -> None:
    site.settings["SYNCHRONOUS"] = "NORMAL"
    run(site, ONE_BY_ONE)
    _first, *later = events(site).split("t")[:-1]
    assert len(later) == 10 and all(re.fullmatch("w+u+r?", call) for call in later)


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
        assert events_before.rstrip("u").endswith("s"), before_each


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
    assert re.fullmatch("w+u+s", refused), "no bell"
    assert re.fullmatch("w+u+s.*us+r?", good), "and the log started over"


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
