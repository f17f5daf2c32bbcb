"""What tasks log while they run, kept on their rows."""

import logging
import signal
from typing import Any

import pytest
from django.db.models import Q
from django.template.loader import render_to_string

from snappea.models import Task
from snappea.monitoring.task_log import Record, containing, records
from snappea.queue import operations
from snappea.queue.records import MAX_LOG, MOST_LINES, added
from snappea.tasks import kept_log
from snappea.testing import drain
from tests.playground import logged
from tests.site import Site, wait_until


def logs(task: Task | None = None) -> list[Record]:
    """Return the log of a row, or of the only one."""
    return records(task or Task.objects.get())


def messages() -> list[str]:
    return [record.message.partition("\n")[0] for record in logs()]


@pytest.mark.on_both
@pytest.mark.parametrize("task", [logged.speak_in_thread, logged.speak_on_loop, logged.speak_alone])
def test_what_it_logs_is_kept(site: Site, task: Any) -> None:
    site.foreman()
    task.delay("word")
    wait_until(lambda: site.counts() == {"successful": 1})
    first, second, third = logs()
    assert (first.attempt, first.level, first.logger) == (1, "INFO", "shop.orders")
    assert first.message == "word: begins"
    assert second.level == "ERROR" and second.message.startswith("word: fails\nTraceback (most recent")
    assert second.message.endswith("KeyError: 'word'")
    assert (third.level, third.message) == ("WARNING", "from a thread")
    row = Task.objects.get()
    assert row.started_at and row.finished_at and first.at and third.at
    assert row.started_at <= first.at <= third.at <= row.finished_at


def test_the_setting_keeps_it_for_all_tasks_but_those_that_refuse(site: Site) -> None:
    site.foreman(KEEP_LOG=True)
    for task in (logged.speak_by_setting, logged.speak_unheard, logged.speak_secretly):
        task.delay("word")
    wait_until(lambda: site.counts() == {"successful": 3})
    heard, unheard, secret = Task.objects.order_by("pk")
    assert [record.message for record in logs(heard)] == ["word"]
    assert unheard.log == secret.log == ""


def test_without_the_setting_nothing_is_kept(site: Site) -> None:
    site.foreman()
    logged.speak_by_setting.delay("word")
    wait_until(lambda: site.counts() == {"successful": 1})
    assert Task.objects.get().log == ""


def test_warnings_are_printed_as_without_it(site: Site) -> None:
    """Python prints them if there is no handler; ours does not count as one."""
    foreman = site.foreman()
    logged.speak_by_setting.delay("before")
    wait_until(lambda: site.counts() == {"successful": 1})
    logged.speak_in_thread.delay("then")
    wait_until(lambda: site.counts() == {"successful": 2})
    logged.speak_by_setting.delay("after")
    wait_until(lambda: site.counts() == {"successful": 3})
    printed = foreman.output().splitlines()
    for line in ("before", "then: fails", "from a thread", "after"):
        assert printed.count(line) == 1
    assert "then: begins" not in printed


@pytest.mark.on_both
def test_it_is_seen_while_the_task_runs_and_survives_a_kill(site: Site) -> None:
    site.settings["FOREMAN_TIMEOUT"] = 2
    foreman, go = site.foreman(), site.directory / "go"
    logged.speak_and_wait.delay(str(go))
    wait_until(lambda: messages() == ["waits"])
    foreman.kill()
    foreman = site.foreman()
    wait_until(lambda: messages() == ["waits", "waits"])
    assert [record.attempt for record in logs()] == [1, 2]
    foreman.send(signal.SIGINT)
    foreman.wait_for_output("Stopping")  # two signals at once are one, and it would wait for the task
    foreman.send(signal.SIGINT)
    assert foreman.wait() == 0
    assert site.counts() == {"ready": 1} and messages() == ["waits", "waits"]


def test_the_last_lines_of_interrupted_tasks_are_written(site: Site) -> None:
    foreman, go = site.hasty_foreman(in_flight__PROGRESS_EVERY=1000.0), str(site.directory / "go")
    first = logged.speak_and_wait.delay(go)
    wait_until(messages)
    second = logged.speak_and_wait.delay(go)
    wait_until(lambda: site.ledger.count("start", 1) == 2)
    assert not logs(second.refresh())
    foreman.send(signal.SIGINT)
    foreman.wait_for_output("Stopping")  # two signals at once are one, and it would wait for the task
    foreman.send(signal.SIGINT)
    assert foreman.wait() == 0
    assert [len(logs(result.refresh())) for result in (first, second)] == [1, 1]


@pytest.mark.on_both
def test_attempts_are_told_apart_after_retries_and_a_requeue(site: Site) -> None:
    site.foreman()
    logged.speak_again.delay()
    for kept in (2, 4):
        wait_until(lambda: site.counts() == {"failed": 1})
        assert [(record.attempt, record.message) for record in logs()] == [
            (number + 1, f"attempt {number % 2 + 1}") for number in range(kept)
        ]
        assert [error["attempt"] for error in Task.objects.get().attempt_errors()][-1] == kept
        operations.requeue(Task.objects.all())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_the_last_words_of_a_process_that_dies(site: Site, how: int) -> None:
    site.foreman()
    logged.speak_and_die.delay(how)
    wait_until(lambda: site.counts() == {"failed": 1})
    assert messages() == ["last words"]


@pytest.mark.parametrize("task", [logged.speak_much, logged.speak_much_alone])
def test_of_much_the_beginning_and_the_end_are_kept(site: Site, task: Any) -> None:
    site.foreman()
    task.delay(20_000)
    wait_until(lambda: site.counts() == {"successful": 1})
    found = logs()
    (gap,) = [position for position, record in enumerate(found) if record.left_out]
    kept = [record.message for record in found if not record.left_out]
    assert len(kept) + found[gap].left_out == 20_000
    assert kept[:gap] == [f"line {number}" for number in range(gap)] and gap > 100
    assert kept[gap:] == [f"line {number}" for number in range(20_000 - len(kept) + gap, 20_000)]
    assert len(Task.objects.get().log) <= MAX_LOG + 20 and len(kept) <= MOST_LINES


def test_what_is_hard_to_write(site: Site) -> None:
    foreman = site.foreman()
    logged.speak_badly.delay()
    wait_until(lambda: site.counts() == {"successful": 1})
    found = logs()
    assert found[0].message == "'%d and %d' (1,) (TypeError while it was formatted)"
    assert found[1].message.endswith("(ValueError while it was formatted)")
    assert found[2].message == "surrogate \\ud800, NUL \\x00, line\\u2028separator\nand newline"
    assert "characters left out" in found[3].message and len(found[3].message) < 5000
    assert found[4].logger == "a" * 200
    assert found[5].message.startswith("<Unprintable that cannot be shown>")
    assert foreman.stop() == 0


@pytest.mark.parametrize("task", [logged.speak_endlessly, logged.speak_endlessly_alone])
def test_a_time_limit_ends_a_task_wherever_it_logs(site: Site, task: Any) -> None:
    site.foreman(NUM_WORKERS=2)
    for _ in range(6):
        task.delay()
    wait_until(lambda: site.counts() == {"failed": 6})
    assert set(Task.objects.values_list("exception", flat=True)) == {"SoftTimeLimitExceeded"}
    assert all(logs(row)[-1].message == "on and on" for row in Task.objects.all())
    logged.speak_in_thread.delay("word")
    wait_until(lambda: site.counts() == {"failed": 6, "successful": 1})
    assert len(logs(Task.objects.get(status="successful"))) == 3


def test_a_signal_handler_may_log(site: Site) -> None:
    site.foreman()
    logged.speak_at_signals.delay()
    wait_until(lambda: site.counts() == {"successful": 1})
    kept = [record.message for record in logs()]
    assert [line for line in kept if line != "signal"] == [f"line {number}" for number in range(300)]


def test_nothing_is_left_in_memory(site: Site) -> None:
    site.foreman()
    logged.speak_in_thread.delay("word")
    logged.speak_alone.delay("word")
    logged.speak_on_loop.delay("word")
    wait_until(lambda: site.counts() == {"successful": 3})
    counted = logged.count_open.delay()
    assert counted.get(timeout=30) == 0


def test_drain_keeps_it_on_rows_only(site: Site, settings: Any) -> None:
    logged.speak_in_thread.delay("word")
    drain()
    assert messages() == ["word: begins", "word: fails", "from a thread"]
    settings.SNAPPEA = {"IN_TESTS": "collect"}
    logged.speak_in_thread.delay("word")
    drain()
    logged.speak_in_thread("a plain call")
    assert not kept_log.open_logs and not kept_log.unwritten_logs
    logging.root.removeHandler(kept_log.keeper)


def test_an_eager_call_keeps_nothing(site: Site, settings: Any) -> None:
    settings.SNAPPEA = {"TASK_ALWAYS_EAGER": True, "KEEP_LOG": True}
    logged.speak_in_thread.delay("word")
    assert not Task.objects.exists() and not kept_log.open_logs


# the text


def lines(*numbers: int) -> list[str]:
    return [f"[{number}]" for number in range(*numbers)]


def test_a_long_log_grows() -> None:
    log = added("", lines(3000))
    assert log.split("\n") == [*lines(500), "2000", *lines(2500, 3000)]
    log = added(log, lines(3000, 3100))
    assert log.split("\n") == [*lines(500), "2100", *lines(2600, 3100)]
    log = added(log, ["7", "[x]"])
    assert log.split("\n") == [*lines(500), str(2100 + 7 + 1), *lines(2601, 3100), "[x]"]
    assert added("", lines(1000)).split("\n") == lines(1000)
    assert added("\n".join(lines(10)), ["3", *lines(10, 20)]).split("\n") == [*lines(10), "3", *lines(10, 20)]


def test_long_lines_leave_room_for_few() -> None:
    log = added("", [letter * 20_000 for letter in "abcde"])
    assert [line[0] for line in log.split("\n")] == ["a", "3", "e"]


def test_lines_that_were_committed_already_are_not_repeated() -> None:
    assert added("[1]\n[2]", ["[2]", "[3]"]) == "[1]\n[2]\n[3]"
    assert added("", ["[1]"]) == "[1]"


def test_garbage_is_skipped(site: Site) -> None:
    good = '[1,"2026-01-02 03:04:05","INFO","shop","fine"]'
    bad = [
        "",
        "x",
        "{}",
        "[1]",
        "5" * 30,
        "[[],[],[],[],[]]",
        '[1,"never","INFO","a","b"]',
        "[" * 5000,
        "null",
    ]
    row = Task.objects.create(task_name="x", log="\n".join([*bad, good, "12", '["a",5,1,2,3]']))
    fine, gap = logs(row)
    assert (fine.attempt, fine.message, gap.left_out) == (1, "fine", 12)


@pytest.mark.on_both
def test_a_search_finds_text_as_it_was_logged(site: Site) -> None:
    line = kept_log._encode([1, "2026-01-02 03:04:05", "INFO", "shop", 'für "Anna"\\n'])
    row = Task.objects.create(task_name="x", log=line)
    for text, is_there in (("für", True), ('R "ANNA"\\', True), ("attempt", False), ("shop", True)):
        assert Task.objects.filter(containing(text) & Q(is_sensitive=False)).exists() is is_there, text
    row.is_sensitive = True
    assert records(row) == []


def test_a_page_shows_it_as_text(site: Site) -> None:
    evil = '[1,"2026-01-02 03:04:05.678901","<b>","a\\u202eb","<script>alert(1)</script>\\u001b"]'
    row = Task.objects.create(task_name="x", log=f"{evil}\n2000")
    page = render_to_string("snappea/task_log.html", {"log_records": records(row)})
    assert "<b>" not in page and "<script>" not in page and "\u202e" not in page and "\x1b" not in page
    assert "03:04:05.678" in page and "2,000 records are left out here." in page and "Attempt 1" in page
    assert render_to_string("snappea/task_log.html", {"log_records": []}).strip() == ""


def test_the_command_shows_it(site: Site) -> None:
    line = '[3,"2026-01-02 03:04:05","INFO","shop","fine\\n\\u001b[31m"]'
    row = Task.objects.create(task_name="x", status="failed", log=f"{line}\n2000\n{line}")
    shown = site.manage("snappea", "show", str(row.pk))
    assert shown.wait() == 0
    assert (
        "Log:\n  1. at 2026-01-02 03:04:05 INFO shop: fine\n    \\x1b[31m\n  ... 2,000 records"
        in shown.output()
    )
    as_json = site.manage("snappea", "show", str(row.pk), "--json")
    assert as_json.wait() == 0 and '"left_out": 2000' in as_json.output()


def test_it_has_no_lock_that_a_time_limit_could_leave_locked() -> None:
    assert kept_log.keeper.lock is None
