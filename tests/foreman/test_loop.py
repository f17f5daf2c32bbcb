"""The Foreman: order, capacity, signals, exit codes, log."""

import os
import re
import signal
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from snappea.models import Task
from tests.playground.tasks import echo, fail, nap, nap_late, nothing, record, record_async, wait_for
from tests.site import Site, wait_until


def test_runs_what_was_enqueued(site: Site, wakeups: str) -> None:
    foreman = site.foreman()
    record.delay("before")
    record_async.delay(key="async")
    echo.delay(1, "two", [3.5, None, True], key={"a": ["é", "\0"]})
    wait_until(lambda: len(site.ledger.lines()) == 5)
    site.wait_until_empty()
    assert site.ledger.count("end", "before") == site.ledger.count("end", "async") == 1
    assert site.ledger.count("echo", "((1,'two',[3.5,None,True]),{'key':{'a':['é','\\x00']}})") == 1
    assert site.counts() == {}
    assert foreman.stop() == 0
    assert f"wakeups by {wakeups}" in foreman.output()


def test_first_in_first_out(site: Site) -> None:
    for key in range(300):
        record.delay(key)
    site.foreman(NUM_WORKERS=1)
    site.wait_until_empty()
    assert [key for word, key in site.ledger.lines() if word == "start"] == [str(key) for key in range(300)]


def test_higher_priority_first(site: Site) -> None:
    for priority in (-5, 0, 100, 7):
        Task.objects.create(
            task_name=record.name, args=[f"{priority}"], priority=priority, enqueued_at=timezone.now()
        )
    site.foreman(NUM_WORKERS=1)
    site.wait_until_empty()
    assert [key for word, key in site.ledger.lines() if word == "start"] == ["100", "7", "0", "-5"]


def test_no_more_at_once_than_workers_and_no_fewer(site: Site) -> None:
    for key in range(9):
        wait_for.delay(key, str(site.directory / "go"))
    site.foreman(NUM_WORKERS=3)
    wait_until(lambda: len(site.ledger.lines()) == 3)
    time.sleep(0.3)  # time for a fourth one to start, if it could
    assert [line[0] for line in site.ledger.lines()] == ["start"] * 3
    (site.directory / "go").touch()
    site.wait_until_empty()
    running = peak = 0
    for word, _key in site.ledger.lines():
        running += {"start": 1, "end": -1}[word]
        peak = max(peak, running)
    assert peak == 3


def test_a_free_worker_does_not_wait_behind_long_tasks(site: Site) -> None:
    """Tasks that were claimed ahead, while they were short, are given back when they turn out long."""
    nothing.delay_many(() for _ in range(2000))
    for key in range(2):
        wait_for.delay(f"long-{key}", str(site.directory / "go"))
    record.delay_many((key,) for key in range(50))
    site.foreman(NUM_WORKERS=2)
    wait_until(lambda: site.counts() == {"running": 2, "ready": 50}, f"{site.counts()}")
    assert set(Task.objects.filter(status="ready").values_list("attempts")) == {(0,)}
    (site.directory / "go").touch()
    site.wait_until_empty()
    assert set(site.ledger.keys("start").values()) == {1}


def test_a_row_created_anywhere_is_an_enqueue(site: Site) -> None:
    site.foreman()
    Task.objects.create(task_name=record.name, args=["by ORM".replace(" ", "-")])
    site.sql(
        "INSERT INTO snappea_task (task_name, args, enqueued_at) VALUES (?, ?, datetime('now'))",
        record.name,
        '["by-hand"]',
    )
    wait_until(lambda: site.ledger.count("end", "by-hand") and site.ledger.count("end", "by-ORM"))


def test_scheduled_rows_run_when_due_and_not_before(site: Site) -> None:
    site.foreman()
    before = time.monotonic()
    due = timezone.now() + timedelta(seconds=1)
    Task.objects.create(task_name=record.name, args=["later"], status="scheduled", run_after=due)
    never = timezone.now() + timedelta(days=1)
    Task.objects.create(task_name=record.name, args=["never"], status="scheduled", run_after=never)
    wait_until(lambda: site.ledger.count("end", "later"))
    assert site.ledger.moments("start", "later")[0] - before >= 0.99
    site.wait_until_empty()
    assert site.counts() == {"scheduled": 1}


def test_failures_are_kept_with_their_traceback(site: Site) -> None:
    foreman = site.foreman()
    fail.delay("x")
    wait_until(lambda: site.counts() == {"failed": 1})
    row = Task.objects.get()
    assert "ValueError: no luck with x" in row.error and "in fail\n    raise ValueError" in row.error
    assert (row.attempts, row.claims, row.interruptions) == (1, 1, 0)
    assert row.started_at and row.finished_at and row.enqueued_at <= row.started_at <= row.finished_at
    foreman.wait_for_output(r"Failed tests\.playground\.tasks\.fail #1 after [\d.]+ s: ValueError: no luck")


# log


def test_the_log_has_one_line_for_each_task_and_no_arguments(site: Site) -> None:
    foreman = site.foreman()
    record.delay("secret")
    fail.delay("x")
    foreman.wait_for_output("Failed")
    finished = foreman.wait_for_output(r".*INFO Finished [a-z.]*record #1 in \d\.\d{3} s\n")
    assert foreman.stop() == 0
    assert len(re.findall("record", foreman.output())) == 1 and "Starting" not in foreman.output()
    assert "secret" not in finished[0]


def test_starts_are_logged_at_debug_level_and_arguments_on_request(site: Site) -> None:
    foreman = site.foreman("-v2", LOG_ARGUMENTS=True)
    record.delay("shown")
    foreman.wait_for_output(r"DEBUG Starting tests\.playground\.tasks\.record #1")
    foreman.wait_for_output(r'Finished tests\.playground\.tasks\.record\(\*\["shown"\], \*\*\{\}\) #1')


def test_names_with_control_characters_stay_on_their_line(site: Site) -> None:
    foreman = site.foreman()
    Task.objects.create(task_name="evil\n2026-01-01 INFO Finished everything\x1b[2J", args="[]")
    line = foreman.wait_for_output(r".*Failed evil.*")[0]
    assert r"evil\n2026" in line and "\x1b" not in line


def test_the_banner_says_what_runs_where(site: Site) -> None:
    nothing.delay_many(() for _ in range(7))
    banner = site.foreman(NUM_WORKERS=3).wait_for_output(r".*tasks ready.*")[0]
    for words in ("Snappea 0.", str(site.database), "3 workers", "7 tasks ready", "synchronous NORMAL"):
        assert words in banner


# signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_running_tasks_finish(site: Site, number: int) -> None:
    foreman = site.foreman(NUM_WORKERS=1)
    wait_for.delay("long", str(site.directory / "go"))
    record.delay("next")
    wait_until(lambda: site.ledger.count("start", "long"))
    foreman.send(number)
    foreman.wait_for_output("Stopping")
    (site.directory / "go").touch()
    assert foreman.wait() == 0
    assert site.ledger.count("end", "long") == 1
    assert site.counts() == {"ready": 1}
    assert site.sql("SELECT attempts, started_at FROM snappea_task") == [(0, None)]


def test_what_does_not_finish_in_time_is_interrupted(site: Site) -> None:
    foreman = site.foreman(GRACEFUL_TIMEOUT=0.3)
    nap.delay("once", 60)
    nap_late.delay("again", 60)
    wait_until(lambda: len(site.ledger.lines()) == 2)
    before = time.monotonic()
    assert foreman.stop() == 0
    assert time.monotonic() - before >= 0.3
    assert dict(site.sql("SELECT task_name, status FROM snappea_task")) == {
        nap.name: "interrupted",
        nap_late.name: "ready",
    }
    once = Task.objects.get(status="interrupted")
    assert "stopped while this task ran" in once.error and once.interruptions == 1 and once.finished_at


def test_a_second_signal_stops_now(site: Site) -> None:
    foreman = site.foreman(GRACEFUL_TIMEOUT=3600)
    nap.delay("x", 3600)
    wait_until(lambda: site.ledger.count("start", "x"))
    foreman.send(signal.SIGTERM)
    foreman.wait_for_output("Stopping")
    foreman.send(signal.SIGINT)
    assert foreman.wait() == 0
    assert site.counts() == {"interrupted": 1}


def test_a_storm_of_signals(site: Site) -> None:
    foreman = site.foreman()
    nap.delay_many((key, 0.2) for key in range(20))
    wait_until(lambda: site.ledger.lines())
    for _ in range(50):
        if foreman.popen.poll() is None:
            foreman.send(signal.SIGTERM)
    assert foreman.wait() == 0
    assert "running" not in site.counts()
    started, ended = site.ledger.keys("start"), site.ledger.keys("end")
    assert site.counts().get("ready", 0) == 20 - len(started)
    assert site.counts().get("interrupted", 0) >= len(started) - len(ended)


@pytest.mark.parametrize("delay", [0.15, 0.3, 0.5])
def test_a_signal_while_it_starts(site: Site, delay: float) -> None:
    nap.delay_many((key, 0.01) for key in range(50))
    process = site.manage("runsnappea")
    time.sleep(delay)
    process.send(signal.SIGTERM)
    assert process.wait() in (0, -signal.SIGTERM)
    assert set(site.counts()) <= {"ready", "running"}
    site.foreman()
    site.wait_until_empty()
    assert set(site.ledger.keys("start").values()) == {1}


def test_workaholic_empties_the_queue_first(site: Site) -> None:
    foreman = site.foreman(WORKAHOLIC=True, NUM_WORKERS=2)
    wait_for.delay("long", str(site.directory / "go"))
    nap.delay_many((key, 0.01) for key in range(100))
    wait_until(lambda: site.ledger.count("start", "long"))
    foreman.send(signal.SIGTERM)
    record.delay_many((f"late-{key}",) for key in range(100))
    time.sleep(0.1)
    (site.directory / "go").touch()
    assert foreman.wait() == 0
    assert site.counts() == {}
    assert len(site.ledger.keys("end")) == 201


def test_workaholic_stops_when_there_is_nothing(site: Site) -> None:
    assert site.foreman(WORKAHOLIC=True).stop() == 0


def test_workaholic_stops_now_at_the_second_signal(site: Site) -> None:
    foreman = site.foreman(WORKAHOLIC=True, GRACEFUL_TIMEOUT=3600, NUM_WORKERS=1)
    nap.delay("x", 3600)
    record.delay("y")
    wait_until(lambda: site.ledger.count("start", "x"))
    foreman.send(signal.SIGTERM)
    time.sleep(0.2)
    assert foreman.popen.poll() is None

    def is_stopping() -> bool:
        foreman.send(signal.SIGTERM)  # two signals that come at once are one
        with suppress(AssertionError):
            wait_until(lambda: "Stopping" in foreman.output(), deadline=5)
        return "Stopping" in foreman.output()

    wait_until(is_stopping)  # one more signal during the exit would end the process otherwise
    assert foreman.wait() == 0
    assert site.counts() == {"interrupted": 1, "ready": 1}


# rest


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.long
def test_an_idle_foreman_writes_nothing(site: Site) -> None:
    site.settings["SCHEDULES"] = [{"task": nothing.name, "every": 86400}]  # so far away that it costs nothing
    foreman = site.hasty_foreman(sqlite_host__REST=0.5)
    unfolded = site.database.stat().st_mtime_ns
    nothing.delay()
    site.wait_until_empty()
    wal = Path(f"{site.database}-wal")
    wait_until(lambda: site.database.stat().st_mtime_ns > unfolded, "the write-ahead log to be folded in")

    def written() -> list[object]:
        files = [(path.stat().st_mtime_ns, path.stat().st_size) for path in (site.database, wal)]
        return [*files, _bytes_written(foreman.pid)]

    def is_at_rest() -> bool:
        before, spent = written(), _cpu_seconds(foreman.pid)
        time.sleep(3)
        return written() == before and _cpu_seconds(foreman.pid) - spent < 1  # it does not spin

    wait_until(is_at_rest)  # after the last of these writes


def _bytes_written(pid: int) -> str:
    return next(line for line in Path(f"/proc/{pid}/io").read_text().splitlines() if line.startswith("wchar"))
