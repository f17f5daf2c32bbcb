"""A restart under the same pid: no task is lost or runs twice, and signals still work."""

import os
import random
import re
import signal
import time
from pathlib import Path

import pytest

from snappea.conf import Settings
from snappea.foreman.in_flight import InFlight
from snappea.foreman.restart import Restart
from tests.playground.tasks import hoard, nap, nap_late, nothing, record, record_async, wait_for
from tests.site import Process, Site, wait_until

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("executed")]


def pids(foreman: Process) -> list[str]:
    """Return the pid of each start."""
    return re.findall(r"Snappea \S+, pid (\d+): ", foreman.output())


def descriptors(foreman: Process) -> list[str]:
    """Return the targets of its descriptors."""
    found = []
    for path in Path(f"/proc/{foreman.pid}/fd").iterdir():
        try:
            found.append(re.sub(r"\d+", "", os.readlink(path)))
        except FileNotFoundError:
            pass  # closed in the meantime
    return sorted(found)


def test_many_new_starts_under_load(site: Site) -> None:
    foreman = site.foreman(MAX_TASKS=10, NUM_WORKERS=4)
    before = descriptors(foreman)
    code = "for key in range(85): nap.delay(key, key % 7 / 1000); time.sleep(0.02)"
    assert site.program(f"import time\n{code}").wait() == 0
    site.wait_until_empty()
    assert site.ledger.keys("start") == site.ledger.keys("end") == {str(key): 1 for key in range(85)}
    wait_until(lambda: len(pids(foreman)) == 9)
    assert set(pids(foreman)) == {str(foreman.popen.pid)}
    assert descriptors(foreman) == before
    assert "to restart, because it has started 10 tasks (MAX_TASKS)" in foreman.output()
    assert foreman.stop() == 0


def test_short_tasks_are_claimed_ahead_no_further_than_counts(site: Site) -> None:
    nothing.delay_many(() for _ in range(2500))
    foreman = site.foreman("-v2", MAX_TASKS=1000)
    site.wait_until_empty()
    wait_until(lambda: len(pids(foreman)) == 3)
    starts = [part.count("DEBUG Starting") for part in foreman.output().split("INFO Snappea")]
    assert starts == [0, 1000, 1000, 500]


def test_what_ends_in_time_ends_before_the_new_start(site: Site) -> None:
    foreman = site.foreman(MAX_TASKS=2, NUM_WORKERS=2)
    nap.delay("slow", 0.5)
    record.delay("quick")
    record.delay("after")
    wait_until(lambda: site.ledger.count("end", "after"))
    assert site.ledger.moments("end", "slow")[0] < site.ledger.moments("start", "after")[0]
    assert len(pids(foreman)) == 2 and site.ledger.keys("start")["slow"] == 1


def test_what_does_not_is_interrupted(site: Site) -> None:
    foreman = site.foreman(MAX_TASKS=2, NUM_WORKERS=2, GRACEFUL_TIMEOUT=0.2)
    nap.delay("once", 60)
    nap_late.delay("again", 60)
    wait_until(lambda: site.ledger.count("start", "again") == 2)
    assert site.counts() == {"interrupted": 1, "running": 1}
    assert site.ledger.count("start", "once") == 1 and len(pids(foreman)) == 2
    assert "The last Foreman left" not in foreman.output()
    assert foreman.stop() == 0


# memory


def test_memory_that_a_task_keeps_is_given_back(site: Site) -> None:
    foreman = site.foreman(MAX_MEMORY="300M")
    hoard.delay("x", 300)
    wait_until(lambda: len(pids(foreman)) == 2)
    assert re.search(r"because it uses 3\d\d MB of memory \(MAX_MEMORY: 300 MB\)", foreman.output())
    record.delay("after")
    wait_until(lambda: site.ledger.count("end", "after"))
    assert site.ledger.count("end", "x") == 1
    resident = int(Path(f"/proc/{foreman.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert resident < 300 * 1024 * 1024


def test_a_limit_that_a_fresh_foreman_exceeds_is_disregarded(site: Site) -> None:
    foreman = site.foreman(MAX_MEMORY="10M")
    assert re.search(
        r"MAX_MEMORY is 10 MB, but the Foreman uses \d+ MB before its first task", foreman.output()
    )
    for key in range(3):
        nap.delay(key, 0.8)
    nap.delay("longer than between two looks", 1.5)
    site.wait_until_empty()
    assert len(pids(foreman)) == 1 and foreman.stop() == 0


def test_the_memory_is_not_looked_at_before_the_first_task() -> None:
    in_flight = InFlight()
    restart = Restart(Settings(MAX_MEMORY="100%"), in_flight)
    restart._limit = 1
    restart.look()
    assert restart.due == ""
    in_flight.started = 1
    restart.look()
    assert "MB of memory" in restart.due


# signals


@pytest.mark.parametrize("seed", range(3))
def test_a_signal_at_any_moment_ends_it_in_order(site: Site, seed: int) -> None:
    record.delay_many((key,) for key in range(200))
    foreman = site.foreman(MAX_TASKS=3)
    time.sleep(random.Random(seed).random() * 0.8)  # at a random moment
    foreman.send(random.Random(seed).choice([signal.SIGTERM, signal.SIGINT]))
    assert foreman.wait() == 0, foreman.output()
    started = site.ledger.keys("start")
    assert set(started.values()) == {1} and started == site.ledger.keys("end")
    assert site.counts() == {"ready": 200 - len(started)}


def test_a_signal_while_the_new_start_is_under_way(site: Site) -> None:
    record.delay_many((key,) for key in range(20))
    foreman = site.foreman(MAX_TASKS=5)
    foreman.wait_for_output("INFO Stopped")
    foreman.send(signal.SIGTERM)
    assert foreman.wait() == 0
    assert set(site.counts()) <= {"ready"} and len(pids(foreman)) <= 2


@pytest.mark.parametrize("workaholic", [False, True])
def test_a_signal_during_the_last_tasks_means_a_real_stop(site: Site, workaholic: bool) -> None:
    foreman = site.foreman(MAX_TASKS=1, NUM_WORKERS=2, WORKAHOLIC=workaholic)
    wait_for.delay("slow", str(site.directory / "go"))
    wait_until(lambda: "to restart" in foreman.output())
    record.delay_many((key,) for key in range(5))
    foreman.send(signal.SIGTERM)
    if workaholic:
        wait_until(lambda: len(site.ledger.keys("end")) == 5)
    else:
        foreman.wait_for_output("a signal was received")
    (site.directory / "go").touch()
    assert foreman.wait() == 0
    assert site.ledger.count("end", "slow") == 1
    assert site.counts() == ({} if workaholic else {"ready": 5})
    assert len(pids(foreman)) == 1 and "a signal was received" in foreman.output()


def test_a_workaholic_is_not_stopped_by_what_it_has_done(site: Site) -> None:
    foreman = site.foreman(MAX_TASKS=10, NUM_WORKERS=1, WORKAHOLIC=True)
    wait_for.delay("first", str(site.directory / "go"))
    wait_until(lambda: site.ledger.count("start", "first"))
    record.delay_many((key,) for key in range(50))
    foreman.send(signal.SIGTERM)
    record_async.delay("after the signal")
    wait_until(lambda: site.ledger.count("end", "after", "the", "signal"))
    (site.directory / "go").touch()
    assert foreman.wait() == 0
    assert len(site.ledger.keys("end")) == 52 and len(pids(foreman)) == 1


TAKEN_BY_A_THREAD = """
import os, signal, socket, threading, time
from snappea.conf import current
from snappea.foreman.in_flight import InFlight
from snappea.foreman.restart import Restart, restart_process
from snappea.foreman.shutdown import Shutdown
reader, writer = socket.socketpair()
reader.setblocking(False)
writer.setblocking(False)
in_flight = InFlight()
shutdown = Shutdown(current(), in_flight, Restart(current(), in_flight), False)
is_second = "SNAPPEA_SIGNALS" in os.environ
threading.Thread(target=time.sleep, args=[60], daemon=True).start()
with shutdown.count_signals(writer.fileno(), lambda: None):
    if is_second:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        print(shutdown.signals, "SNAPPEA_SIGNALS" in os.environ, mask)
    else:
        shutdown.hand_on_signals(reader.fileno())
        if sys.argv[1] == "kept":
            signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
        elif sys.argv[1] == "taken":
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            reader.settimeout(60)
            while len(reader.recv(2, socket.MSG_PEEK)) < 2:
                time.sleep(0.001)  # until the other thread has noted both
            reader.setblocking(False)
        restart_process(at_once=sys.argv[1] == "taken")
print("after")
"""


@pytest.mark.parametrize(("how", "count"), [("none", 0), ("kept", 1), ("taken", 2)])
def test_signals_outlive_the_image_that_they_came_to(site: Site, how: str, count: int) -> None:
    process = site.program(TAKEN_BY_A_THREAD, how)
    assert process.wait() == 0
    assert process.output() == f"{count} False set()\nafter\n"


def test_where_nothing_can_be_started_any_more(site: Site) -> None:
    code = "sys.executable = '/no/such/python'\n"
    site.settings["MAX_TASKS"] = 1
    foreman = site.program(
        code + "from django.core.management import call_command\ncall_command('runsnappea')"
    )
    foreman.wait_for_output("tasks ready")
    record.delay("x")
    assert foreman.wait() == 1
    assert "The Foreman cannot restart: [Errno 2]" in foreman.output()
    assert site.counts() == {}
