"""Tasks in child processes: limits, crashes, and which processes end together."""

import os
import resource
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from snappea.errors import TaskFailed
from snappea.models import Task
from snappea.queue import logbook
from snappea.queue.database import connect, file_of
from snappea.queue.logbook import Note
from snappea.queue.records import Claim
from snappea.workers.processes.supervisor import Supervisor
from tests.playground import isolated
from tests.playground.tasks import close_all, nap, record
from tests.projects import Project
from tests.site import DEADLINE, Process, Site, wait_until


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def fork_server_of(foreman: Process) -> int:
    """Return the pid of the fork server, which takes a moment to name itself."""
    (fork_server,) = wait_until(
        lambda: [child for child in children_of(foreman.pid) if name_of(child) == "snappea-forks"]
    )
    return int(fork_server)


def noted(site: Site, *words: object) -> list[str]:
    """Wait for the line that begins with these words, and return the rest of it."""
    wanted = [str(word) for word in words]
    found: list[list[str]] = wait_until(
        lambda: [line for line in site.ledger.lines() if line[: len(wanted)] == wanted], str(words)
    )
    return found[0][len(wanted) :]


def row(task: Any) -> Task:
    """Return the row of an AsyncResult once it has ended."""
    wait_until(lambda: task.status not in ("ready", "running", "scheduled"), "its end")
    found: Task = task.refresh()
    return found


def waits_no_more(task: Any) -> bool:
    return bool(task.status != "ready")


# what works as in threads


def test_it_has_a_process_of_its_own_and_knows_what_it_would_know_in_a_thread(site: Site) -> None:
    foreman = site.foreman()
    task = isolated.know.delay(7)
    known = task.get(timeout=DEADLINE)
    assert (known["first"], known["id"], known["attempt"]) == (7, task.id, 1)
    _pid, parent = noted(site, "who", "from-7")
    assert int(parent) == fork_server_of(foreman) and known["pid"] != foreman.pid
    assert isolated.know_async.delay(0.01).get(timeout=DEADLINE) not in (foreman.pid, int(parent))
    text = "ü\n\0" * 100_000
    assert isolated.echo.delay(text).get(timeout=DEADLINE) == text


def test_its_deadline_is_the_earlier_of_the_two(site: Site) -> None:
    site.foreman()
    assert 20 < isolated.seconds_left.delay().get(timeout=DEADLINE) <= 30
    assert 50 < isolated.seconds_left_by_hard_limit.delay().get(timeout=DEADLINE) <= 60


def test_it_fails_and_is_tried_again_as_in_a_thread(site: Site) -> None:
    site.foreman()
    task = isolated.fail.delay("x")
    retried = isolated.fail_until.delay("y", 3)
    assert row(task).status == "failed"
    assert 'raise ValueError(f"no luck with {key}")' in row(task).error
    wait_until(lambda: retried.status is None)
    assert [line for line in site.ledger.lines() if line[1] == "y"] == [
        ["start", "y", str(n)] for n in (1, 2, 3)
    ]


def test_progress_is_told(site: Site) -> None:
    site.foreman()
    done = isolated.report_and_end.delay()
    isolated.report.delay(7, str(site.directory / "gate"))
    wait_until(lambda: site.sql("SELECT 1 FROM snappea_task WHERE progress_note = 'step 7'"))
    (site.directory / "gate").touch()
    assert row(done).progress_done == 1000
    site.wait_until_empty()


def test_what_it_leaves_open_is_rolled_back(site: Site) -> None:
    foreman = site.foreman()
    for _ in range(2):
        isolated.leak_transaction.delay("leak")
        site.wait_until_empty()
    assert site.ledger.count("end", "leak") == 2 and site.counts() == {}
    assert foreman.output().count("left a transaction open on 'default'") == 2


def test_two_use_two_processors(site: Site) -> None:
    site.foreman(NUM_WORKERS=2)
    isolated.compute.delay("a", 0.5)
    isolated.compute.delay("b", 0.5)
    site.wait_until_empty()
    (pid, began, ended), (other_pid, other_began, other_ended) = (noted(site, "cpu", key) for key in "ab")
    assert pid != other_pid
    assert float(began) < float(other_ended) and float(other_began) < float(ended)


# limits


def test_it_is_killed_at_its_limit_with_all_that_it_started(site: Site) -> None:
    foreman = site.foreman()
    task = isolated.limited.delay("x", "/nowhere")
    pids = [int(pid) for pid in noted(site, "pids", "x")]
    assert row(task).status == "failed" and "TaskKilled: killed after 0.5 s" in row(task).error
    wait_until(lambda: not any(map(is_alive, pids)))
    assert "Failed tests.playground.isolated.limited" in foreman.output()
    record.delay("after")
    wait_until(lambda: site.ledger.count("end", "after"))


def test_what_was_killed_is_tried_again_only_if_asked_for(site: Site) -> None:
    site.foreman()
    task = isolated.limited_and_retried.delay("x")
    dying = isolated.die_and_retry.delay("y", "exit")
    wait_until(lambda: task.status is None)
    assert site.ledger.keys("start")["x"] == 3
    found = row(dying)
    assert (found.status, found.attempts) == ("failed", 3)
    assert [line["error"] for line in found.attempt_errors()] == ["TaskKilled: exited with code 3"] * 3


def test_its_death_harms_no_other_task(site: Site) -> None:
    foreman = site.foreman()
    nap.delay("neighbour", 0.5)
    isolated.stay.delay("sibling", str(site.directory / "gate"))
    noted(site, "start", "sibling")
    for how, end in {
        "segfault": "killed by SIGSEGV",
        "abort": "killed by SIGABRT",
        "exit": "exited with code 3",
        "kill": "killed by SIGKILL (perhaps the machine was short of memory)",
    }.items():
        task = isolated.die.delay("x", how)
        assert row(task).status == "failed" and end in row(task).error
        with pytest.raises(TaskFailed):
            task.get(timeout=DEADLINE)
    (site.directory / "gate").touch()
    site.wait_until_empty()
    assert site.ledger.count("end", "neighbour") == site.ledger.count("end", "sibling") == 1
    assert foreman.stop() == 0


def test_memory_is_limited(site: Site) -> None:
    site.foreman()
    fits, does_not = isolated.allocate.delay(16), isolated.allocate.delay(1024)
    starved = isolated.starve.delay()
    wait_until(lambda: fits.status is None)
    assert row(does_not).status == "failed"
    assert "MemoryError" in row(does_not).error and "bytearray(megabytes" in row(does_not).error
    assert "MemoryError: max_memory=4096: the process uses" in row(starved).error
    assert noted(site, "allocated") == [str(16 * 1024 * 1024)]


def test_the_soft_limit_ends_even_a_sleep(site: Site) -> None:
    site.foreman()
    raises, cleans_up = isolated.sleep_softly.delay("a", False), isolated.sleep_softly.delay("b", True)
    assert "SoftTimeLimitExceeded: it took more than 0.3 s" in row(raises).error
    wait_until(lambda: cleans_up.status is None)
    assert site.ledger.count("soft", "b") == 1


def test_coroutines_are_ended_where_they_wait(site: Site) -> None:
    site.foreman()
    isolated.sleep_async.delay("limit")
    revoked = isolated.stay_async.delay("revoke")
    starved = isolated.starve_async.delay()
    wait_until(lambda: site.ledger.count("ended", "limit", "SoftTimeLimitExceeded"))
    wait_until(lambda: "revoke" in site.ledger.keys("start"))
    assert revoked.revoke(terminate=True)
    wait_until(lambda: revoked.status == "cancelled")
    assert site.ledger.count("revoked", "revoke") == 1
    assert "MemoryError: max_memory=16777216" in row(starved).error and starved.status == "failed"
    wait_until(lambda: site.counts() == {"failed": 2, "cancelled": 1})
    assert Task.objects.get(task_name=isolated.sleep_async.name).error.endswith("it took more than 0.3 s\n")


def test_receivers_in_the_foreman_are_told_of_a_death(site: Site) -> None:
    code = """
from snappea.signals import task_failed, task_retried
from tests.playground.ledger import note
def failed(sender, id, exception, **kwargs):
    note("failed", sender.__name__, type(exception).__name__, exception, os.getpid())
def retried(sender, id, exception, delay, **kwargs):
    note("retried", sender.__name__, delay)
task_failed.connect(failed)
task_retried.connect(retried)
import os
from django.core.management import call_command
call_command("runsnappea")
"""
    foreman = site.program(code)
    isolated.die_and_retry.delay("x", "exit")
    told = noted(site, "failed", "die_and_retry")
    assert told == ["TaskKilled", "exited", "with", "code", "3", str(foreman.pid)]
    assert site.ledger.count("retried", "die_and_retry", 0.05) == 2


# revoking


def test_revoke_ends_even_a_sleep(site: Site) -> None:
    site.foreman()
    task = isolated.sleep.delay("x")
    noted(site, "start", "x")
    assert task.revoke(terminate=True)
    assert row(task).status == "cancelled" and "TaskRevoked" in row(task).error
    assert site.ledger.count("revoked", "x") == 1


def test_revoke_kills_what_does_not_end(site: Site) -> None:
    site.hasty_foreman(supervisor__REVOKE_GRACE=3, supervisor__LOOK_EVERY=0.1)
    task = isolated.sleep_on.delay("x")
    noted(site, "start", "x")
    task.revoke(terminate=True)
    assert row(task).status == "cancelled"
    assert "TaskRevoked: killed, because it had not ended after 3 s" in row(task).error
    assert site.ledger.count("woken", "x") == 1


def test_revoked_at_any_moment(site: Site) -> None:
    """Before it starts, while it reports progress, as it ends: it is cancelled or done, nothing else."""
    site.settings["NUM_WORKERS"] = 2
    foreman = site.hasty_foreman(supervisor__REVOKE_GRACE=DEADLINE)
    for number in range(40):
        task = isolated.report_for_ever.delay("x") if number % 2 else isolated.nothing.delay()
        wait_until(partial(waits_no_more, task))
        time.sleep(number % 10 * 0.002)
        task.revoke(terminate=True)
    site.wait_until_empty()
    assert set(site.counts()) <= {"cancelled"} and site.counts()["cancelled"] >= 20
    assert "TaskKilled" not in foreman.output() and "Traceback" not in foreman.output()
    assert "killed" not in "".join(Task.objects.values_list("error", flat=True))


def test_a_stop_waits_for_it_although_all_get_the_signal(site: Site) -> None:
    """Terminals and systemd send it to each process of the service."""
    foreman = site.foreman()
    isolated.stay.delay("x", str(site.directory / "gate"))
    child = int(noted(site, "start", "x")[0])
    for pid in (child, fork_server_of(foreman), foreman.pid):
        os.kill(pid, signal.SIGTERM)
    foreman.wait_for_output("Stopping")
    (site.directory / "gate").touch()
    assert foreman.wait() == 0
    assert site.ledger.count("end", "x") == 1 and site.counts() == {}


def test_no_child_survives_a_stop(site: Site) -> None:
    foreman = site.foreman(GRACEFUL_TIMEOUT=0.2)
    once = isolated.stay.delay("once", "/nowhere")
    late = isolated.stay_late.delay("late", "/nowhere")
    pids = [int(noted(site, "start", "once")[0]), *map(int, noted(site, "pids", "late"))]
    pids.append(fork_server_of(foreman))
    assert foreman.stop() == 0
    assert not any(map(is_alive, pids))
    assert (once.status, late.status) == ("interrupted", "ready")


# which processes end together


def test_children_die_with_the_foreman_before_their_task_may_run_again(site: Site) -> None:
    foreman = site.foreman()
    isolated.stay_late.delay("x", str(site.directory / "gate"))
    pids = [int(pid) for pid in noted(site, "pids", "x")]
    fork_server = fork_server_of(foreman)
    os.kill(fork_server, signal.SIGSTOP)  # so that it is slow
    foreman.kill()
    again = site.manage("runsnappea")
    time.sleep(1)
    assert again.popen.poll() is None and again.output() == "" and is_alive(pids[0])
    os.kill(fork_server, signal.SIGCONT)
    again.wait_for_output("left 1 running: interrupted, to run again")
    assert not any(map(is_alive, [*pids, fork_server]))
    wait_until(lambda: site.ledger.keys("start")["x"] == 2)
    (site.directory / "gate").touch()
    site.wait_until_empty()
    assert site.ledger.count("end", "x") == 1


@pytest.mark.long
def test_children_die_with_the_foreman_and_the_fork_server_at_once(site: Site) -> None:
    foreman = site.foreman()
    isolated.stay.delay("x", "/nowhere")
    child = int(noted(site, "start", "x")[0])
    for pid in (fork_server_of(foreman), foreman.pid):
        os.kill(pid, signal.SIGKILL)
    foreman.wait()
    site.foreman()
    assert not is_alive(child) and site.counts() == {"interrupted": 1}


def test_the_foreman_starts_another_fork_server_if_it_dies(site: Site) -> None:
    foreman = site.foreman()
    gate = str(site.directory / "gate")
    task = isolated.stay.delay("x", "/nowhere")
    child = int(noted(site, "start", "x")[0])
    nap.delay("thread", 1)
    noted(site, "start", "thread")
    died = fork_server_of(foreman)
    os.kill(died, signal.SIGKILL)
    assert "its process died with the fork server" in row(task).error and not is_alive(child)
    for key in "ab":
        isolated.stay_late.delay(key, gate)
        assert int(noted(site, "pids", key)[0]) in children_of(fork_server_of(foreman))
    assert children_of(foreman.pid) == [fork_server_of(foreman)] != [died]
    noted(site, "end", "thread")
    foreman.kill()  # it holds the lock until its children have ended, as one that was forked
    site.foreman().wait_for_output("left 2 running: interrupted, to run again")
    (site.directory / "gate").touch()
    site.wait_until_empty()
    assert site.counts() == {"failed": 1}


def test_a_project_without_isolated_tasks_has_no_fork_server_until_one_arrives(tmp_path: Path) -> None:
    late = "import os\nfrom pathlib import Path\nfrom snappea import task\n\n\n@task(time_limit=60)\n"
    late += "def who():\n    Path('who').write_text(f'{os.getppid()} ')\n"
    settings = """
INSTALLED_APPS = ["snappea", "shop"]
DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]
SQLITE = "django.db.backends.sqlite3"
DATABASES = {name: {"ENGINE": SQLITE, "NAME": f"%s/{name}.db"} for name in ("default", "snappea")}
"""
    files = {"settings.py": settings % tmp_path, "shop/__init__.py": "", "shop/services.py": late}
    project = Project(tmp_path, files)
    project.run("django", "migrate", "--database=snappea", "-v0")
    with project.running("python -m django runsnappea", "tasks ready") as foreman:
        assert children_of(foreman.popen.pid) == []
        project.run("django", "snappea", "enqueue", "shop.services.who")
        foreman.wait_for_output("Finished shop.services.who")
        assert (tmp_path / "who").read_text().split() == [str(pid) for pid in children_of(foreman.popen.pid)]
        foreman.popen.terminate()
        assert foreman.popen.wait(DEADLINE) == 0 and "Traceback" not in foreman.output()


def test_without_a_fork_server_it_fails_and_says_so(site: Site) -> None:
    outcome = Supervisor(Claim(0, 1, 1, isolated.who.name, "[1]", "{}"), isolated.who, None, print).run()
    assert "only `manage.py runsnappea` can start a process for it" in outcome.reason


@pytest.mark.needs("strace")
def test_it_is_retried_if_no_process_can_be_started(site: Site) -> None:
    foreman = site.hasty_foreman(supervisor__TRY_AGAIN=0.2)
    inject = ["-e", "trace=clone,clone3,fork", "-e", "inject=clone,clone3,fork:error=EAGAIN:when=1..3"]
    log = site.directory / "trace"
    with subprocess.Popen(["strace", "-o", log, *inject, "-p", str(fork_server_of(foreman))]) as strace:
        tracer = f"TracerPid:\t{strace.pid}\n"
        wait_until(lambda: tracer in Path(f"/proc/{fork_server_of(foreman)}/status").read_text())
        isolated.who.delay("x")
        noted(site, "who", "x")
        strace.terminate()
    site.wait_until_empty()
    assert foreman.output().count("no process could be started for it: [Errno 11]") == 3
    assert foreman.output().count("Isolated tasks wait, because no process can be started") == 1


def test_it_is_retried_if_no_descriptors_are_left(site: Site) -> None:
    foreman = site.hasty_foreman(supervisor__TRY_AGAIN=0.2)
    fork_server = fork_server_of(foreman)
    _soft, hard = before = resource.prlimit(fork_server, resource.RLIMIT_NOFILE)
    most = 1 + max(int(path.name) for path in Path(f"/proc/{fork_server}/fd").iterdir())
    resource.prlimit(fork_server, resource.RLIMIT_NOFILE, (most, hard))
    isolated.who.delay("x")
    foreman.wait_for_output(
        "no process could be started for it: the fork server has ended or has no descriptors left"
    )
    resource.prlimit(fork_server, resource.RLIMIT_NOFILE, before)
    noted(site, "who", "x")


# what it inherits, and what it leaves


def test_it_inherits_no_descriptor_that_it_should_not(site: Site) -> None:
    site.foreman()
    isolated.stay.delay("sibling", str(site.directory / "gate"))
    noted(site, "start", "sibling")
    record.delay("thread")
    isolated.descriptors.delay()
    wait_until(lambda: not isolated_rows(site, isolated.descriptors.name))
    opened = dict(line[1:] for line in site.ledger.lines() if line[0] == "fd")
    assert {"0", "1", "2"} < opened.keys()
    ours = sorted(path.split(":")[0] for number, path in opened.items() if int(number) > 2)
    assert ours == [f"{site.database}-lock", "socket"]
    (site.directory / "gate").touch()
    site.wait_until_empty()


def isolated_rows(site: Site, name: str) -> list[tuple[Any, ...]]:
    return site.sql("SELECT id FROM snappea_task WHERE task_name = ?", name)


def test_closing_all_descriptors_fails_and_writes_nothing_into_what_took_their_place(site: Site) -> None:
    site.foreman()
    task = isolated.close_all.delay(str(site.directory / "file"))
    assert row(task).status == "failed" and "must not close descriptors" in row(task).error
    noted(site, "closed")
    assert [path.read_text() for path in site.directory.glob("file-*")] == ["mine"] * 4
    record.delay("after")
    noted(site, "end", "after")


def test_closing_all_descriptors_in_a_thread_ends_the_foreman_before_it_writes_elsewhere(site: Site) -> None:
    foreman = site.foreman()
    nap.delay("neighbour", 60)
    noted(site, "start", "neighbour")
    close_all.delay(str(site.directory / "file"))
    assert foreman.wait() == 1 and "A task has closed the Foreman's descriptors" in foreman.output()
    # it may have ended in the middle of the task
    assert {path.read_text() for path in site.directory.glob("file-*")} <= {"", "mine"}
    assert site.sql("PRAGMA integrity_check") == [("ok",)]
    site.foreman()
    assert set(site.counts()) == {"interrupted"}


def test_what_it_forks_holds_nothing_of_ours(site: Site) -> None:
    foreman = site.foreman()
    gate = site.directory / "gate"
    isolated.fork.delay("x", str(gate))
    isolated.fork_and_return.delay("y")
    pid, _descriptors = noted(site, "fork", "x")
    wait_until(lambda: site.counts() == {})
    assert (
        site.ledger.count("end", "x") == site.ledger.count("end", "y") == site.ledger.count("copy", "y") == 1
    )
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    assert not [link for link in links if "-lock" in link or "socket" in link]
    foreman.kill()
    again = site.foreman()
    assert is_alive(int(pid))
    gate.touch()
    wait_until(lambda: not is_alive(int(pid)))
    assert again.stop() == 0 and site.counts() == {}


def test_hundreds_leave_nothing_behind(site: Site) -> None:
    foreman = site.foreman("-v0", NUM_WORKERS=4)
    fork_server = fork_server_of(foreman)

    def load(rounds: int) -> None:
        for number in range(rounds):
            for key in range(8):
                isolated.nothing.delay()
                isolated.fail.delay(key)
                isolated.die.delay("x", ("kill", "exit")[key % 2])
            isolated.know.delay(number)
            isolated.report_and_end.delay()
        site.wait_until_empty()

    def holdings() -> tuple[int, ...]:
        pids = (foreman.pid, fork_server)
        descriptors = [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids]
        threads = [len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in pids]
        return (*descriptors, *threads, len(children_of(foreman.pid)), len(children_of(fork_server)))

    load(2)
    before = holdings()
    assert before[2:] == (5, 1, 1, 0)
    load(11)
    wait_until(lambda: holdings() == before, f"{before}, not {holdings()}")


def test_what_has_told_its_outcome_is_not_interrupted(site: Site) -> None:
    """The process of a task may take seconds to end, for example while Sentry sends its queue."""
    foreman = site.foreman()
    isolated.end_slowly.delay("x", str(site.directory / "go"))
    file = file_of(connect())
    assert file
    wait_until(lambda: Note.SUCCEEDED in (logbook.read(file) or {}).values())
    assert site.counts() == {"running": 1}
    foreman.kill()
    site.foreman().wait_for_output("The last Foreman left 1 running: succeeded")
    site.wait_until_empty()
    assert site.counts() == {} and site.ledger.count("start", "x") == 1
