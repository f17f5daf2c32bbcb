"""`manage.py snappea`: what it shows, what it does, and its exit codes."""

import json
import re
import signal
import subprocess
import sys
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command, load_command_class
from django.core.management.base import CommandError, OutputWrapper

from snappea.management import console
from snappea.models import Status, Task
from snappea.queue import operations
from snappea.tasks.function import task
from tests.playground.gated import by_account, two_late
from tests.playground.lifecycle import add, loop
from tests.playground.tasks import fail, nap, record
from tests.site import Made, Site, wait_until


@pytest.fixture
def say(site: Site, capsys: Any) -> Any:
    """Return a function that runs a subcommand here and returns what it wrote."""

    def run(*arguments: object) -> str:
        call_command("snappea", *map(str, arguments))
        written: str = capsys.readouterr().out
        return written

    return run


def run(site: Site, *arguments: str, **settings: Any) -> "subprocess.CompletedProcess[str]":
    """Run a subcommand as a process."""
    return subprocess.run(
        [sys.executable, "-m", "django", "snappea", *arguments],
        env=site.environment(**settings),
        capture_output=True,
        text=True,
    )


# look


def test_status(site: Site, say: Any) -> None:
    record.apply_async(("later",), countdown=3600)
    operations.pause("mail")
    assert "No Foreman runs. Start it: python manage.py runsnappea" in say("status")
    foreman = site.foreman(NUM_WORKERS=3)
    fail.delay("a")
    nap.delay("b", 60)
    wait_until(lambda: site.counts() == {"scheduled": 1, "failed": 1, "running": 1})
    shown = say("status")
    assert f"Foreman: pid {foreman.pid} on " in shown and "1 tasks on 3 workers" in shown
    assert "Tasks: 1 scheduled, 0 ready, 1 running, 1 failed, 0 interrupted, " in shown
    assert re.search(r"^mail .* paused$", shown, re.MULTILINE)
    assert re.search(rf"^ *\d+ +{nap.name} ", shown, re.MULTILINE)
    assert re.search(rf"^{fail.name} +0 +0 +1 ", shown, re.MULTILINE)
    data = json.loads(say("status", "--json"))
    assert data["foremen"][0]["pid"] == foreman.pid and data["counts"]["running"] == 1


WATCH = """
import signal
from django.core.management import call_command
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell has it ignored
call_command("snappea", "status", "--watch")
"""


def test_status_that_watches(site: Site) -> None:
    watching = site.program(WATCH)
    wait_until(lambda: watching.output().count("No Foreman runs") >= 2)
    watching.send(signal.SIGINT)
    assert watching.wait() == 0 and "Traceback" not in watching.output()


def test_list(site: Site, say: Any) -> None:
    for number in range(3):
        record.apply_async((number,), queue="mail" if number else "default")
    Task.objects.filter(args="[2]").update(status="failed", error="Traceback...\nValueError: \x1b[31mred\nx")
    assert say("list", "running") == ""
    lines = say("list", "ready").splitlines()
    assert lines[0].split() == ["ID", "TASK", "QUEUE", "PRIORITY", "ATTEMPTS", "WHEN", "ERROR"]
    assert len(lines) == 3 and record.name in lines[1]
    assert "\x1b" not in say("list", "failed")
    assert len(say("list", "ready", "--queue", "mail").splitlines()) == 2
    assert len(say("list", "ready", "--limit", 1).splitlines()) == 2
    assert say("list", "ready", "--task", "other") == say("list", "ready", "--older-than", "5m") == ""
    [entry] = json.loads(say("list", "failed", "--json"))
    assert (entry["args"], entry["status"]) == ("[2]", "failed")


@pytest.mark.parametrize("status", Status.values)
def test_list_finds_each_status(site: Site, say: Any, status: str) -> None:
    record.delay(1)
    if status == "running":
        site.foreman()
        task_id = nap.delay("nap", 60).id
        wait_until(lambda: site.ledger.count("start", "nap") and site.counts() == {"running": 1})
    else:
        task_id = record.delay(2).id or 0
        Task.objects.filter(pk=task_id).update(status=status)
    found = [entry["id"] for entry in json.loads(say("list", status, "--json"))]
    assert task_id in found and (status == "ready" or found == [task_id])


def test_show(site: Site, say: Any) -> None:
    result = fail.delay("<b>")
    site.foreman()
    wait_until(lambda: result.status == "failed")
    shown = say("show", result.id)
    assert "ValueError: no luck with <b>" in shown and "  1. at " in shown
    assert re.search(r"^ +attempts: 1$", shown, re.MULTILINE)
    data = json.loads(say("show", result.id, "--json"))
    assert data["errors"][0]["attempt"] == 1 and data["args"] == '["<b>"]'
    with pytest.raises(CommandError, match="There is no task 99"):
        say("show", 99)


def test_show_attempts_that_were_written_by_hand(site: Site, say: Any) -> None:
    task = Task.objects.create(task_name="x", status="failed", errors='{"attempt": 1}\n{"error": 5}\n')
    assert "  1. at None: None\n  None. at None: 5" in say("show", task.pk)


def test_what_a_sensitive_task_was_given_is_not_shown(site: Site, say: Any) -> None:
    task_id = record.delay("the-password").id
    Task.objects.update(is_sensitive=True)
    for arguments in (("show", task_id), ("show", task_id, "--json"), ("list", "ready", "--json")):
        assert "the-password" not in say(*arguments)


def test_a_task_that_became_sensitive_since_it_was_enqueued(site: Site, say: Any, made: Made) -> None:
    @task(name="tests.made.secret", sensitive=True)
    def secret(word: str) -> None: ...

    task_id = secret.delay("the-password").id
    Task.objects.update(is_sensitive=False)
    assert "the-password" not in say("show", task_id)


# call


def test_enqueue(site: Site, say: Any) -> None:
    shown = say("enqueue", record.name, "--args", '["ä"]', "--queue", "mail", "--priority", "5")
    task = Task.objects.get()
    assert shown == f"Enqueued {record.name} #{task.pk}.\n"
    assert (task.args, task.queue, task.priority, task.status) == ('["ä"]', "mail", 5, "ready")
    say("enqueue", record.name, "--kwargs", '{"key": 1}', "--countdown", "2h")
    assert Task.objects.get(status="scheduled").kwargs == '{"key":1}'


def test_enqueue_and_wait(site: Site, say: Any) -> None:
    site.foreman()
    assert say("enqueue", add.name, "--args", "[1, 2]", "--wait") == "3\n"
    assert say("enqueue", record.name, "--args", "[1]", "--wait", "60") == "null\n", "though it keeps none"
    with pytest.raises(CommandError, match="ValueError: no luck with 3"):
        say("enqueue", fail.name, "--args", "[3]", "--wait", "60")
    with pytest.raises(CommandError, match="has not ended within"):
        say("enqueue", nap.name, "--args", "[3, 60]", "--wait", "0.1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([record.name], "missing a required argument: 'key'"),
        (["shop.tasks.gone"], "Unknown task 'shop.tasks.gone'"),
        ([record.name, "--args", "[1]", "--priority", "101"], "must be from -100 to 100"),
        ([record.name, "--args", "[1]", "--queue", ""], "must be a string of 1 to 100"),
        ([record.name, "--args", "[1"], "is not JSON"),
        ([record.name, "--args", '{"a": 1}'], "must be a JSON list"),
        ([record.name, "--kwargs", "[1]"], "must be a JSON object"),
        ([record.name, "--args", "[1]", "--countdown", "soon"], "must be a number of seconds, or like 5m"),
    ],
)
def test_enqueue_what_makes_no_sense(site: Site, say: Any, arguments: list[str], words: str) -> None:
    with pytest.raises(CommandError) as raised:
        say("enqueue", *arguments)
    assert words in str(raised.value)
    assert not Task.objects.exists()


def test_limits(site: Site, say: Any) -> None:
    name = two_late.name
    assert say("limit") == ""
    assert say("limit", name, "--max-concurrency", 5) == f"{name}: max_concurrency=5\n"
    both = f"{name}: max_concurrency=5, rate_limit='10/m burst 3'\n"
    assert say("limit", name, "--rate-limit", "10/m burst 3") == both
    assert say("limit", name, "--reset", "--rate-limit", "none") == f"{name}: rate_limit=None\n"
    assert say("limit", by_account.name, "--key", "x", "--max-concurrency", "none") == (
        f"{by_account.name}:x: max_concurrency=None\n{name}: rate_limit=None\n"
    )
    for arguments, words in (
        (["--reset"], "Name a task."),
        ([name, "--rate-limit", "10"], "rate_limit is '10'; it must be a number and a unit"),
        ([record.name, "--max-concurrency", "1"], "record has no limits that could change. Give it"),
        (["nope", "--reset"], "Unknown task 'nope'"),
        ([name, "--max-concurrency", "some"], "argument --max-concurrency: 'some' must be a non-negative"),
    ):
        with pytest.raises(CommandError, match=words):
            say("limit", *arguments)


def test_run_in_the_foreground(site: Site, say: Any) -> None:
    assert say("run", add.name, "--args", "[1, 2]") == "3\n"
    with pytest.raises(ValueError, match="no luck"):
        say("run", fail.name, "--args", "[1]")
    assert not Task.objects.exists()


# decide


def test_requeue_cancel_and_delete_by_id_and_by_filter(site: Site, say: Any) -> None:
    ids = [record.delay(number).id or 0 for number in range(6)]
    Task.objects.filter(pk__in=ids[:3]).update(status="failed")
    assert say("requeue", ids[0]) == "Requeued 1.\n"
    assert say("requeue", "--status", "failed", "--task", record.name, "--countdown", "1h") == "Requeued 2.\n"
    assert site.counts() == {"ready": 4, "scheduled": 2}
    assert say("cancel", ids[0], ids[3]) == "Cancelled 2.\n"
    assert say("cancel", "--status", "scheduled") == "Cancelled 2.\n"
    Task.objects.filter(pk=ids[4]).update(status="interrupted")
    assert say("delete", "--all") == "Deleted 1.\n", "what waits is not deleted"
    assert site.counts() == {"ready": 1}
    assert say("cancel", "--queue", "mail") == "Cancelled 0.\n"


def test_cancel_what_runs(site: Site, say: Any) -> None:
    site.foreman()
    result = loop.delay("x")
    wait_until(lambda: site.ledger.count("start", "x"))
    assert say("cancel", "--task", loop.name) == "Cancelled 0.\n"
    assert say("cancel", result.id, "--terminate") == "Cancelled 1.\n"
    wait_until(lambda: result.status == "cancelled")


def test_decisions_that_cannot_be_carried_out(site: Site, say: Any) -> None:
    task_id = record.delay(1).id
    with pytest.raises(CommandError, match="Which tasks"):
        say("delete")
    with pytest.raises(
        CommandError, match="1 of these tasks are gone, or not in one of these states: failed"
    ):
        say("requeue", task_id)
    with pytest.raises(CommandError, match="2 of these tasks are gone"):
        say("cancel", task_id, 98, 99)
    assert not Task.objects.exists(), "what could be done is done"


def test_purge(site: Site, say: Any) -> None:
    for status in ("successful", "cancelled", "failed", "ready"):
        Task.objects.create(task_name=record.name, status=status)
    old = Task.objects.create(task_name=record.name, status="successful")
    for row in Task.objects.all():
        site.sql("UPDATE snappea_task SET finished_at = datetime('now', '-5 minutes') WHERE id = ?", row.pk)
    site.sql("UPDATE snappea_task SET finished_at = datetime('now', '-5 days') WHERE id = ?", old.pk)
    assert say("purge", "--older-than", "3d", "--dry-run") == "Would delete 1.\n"
    assert say("purge", "--queue", "mail") == "Deleted 0.\n"
    assert say("purge", "--queue", "default", "--older-than", "3d") == "Deleted 1.\n"
    assert say("purge") == "Deleted 2.\n"
    assert say("purge", "failed") == "Deleted 1.\n"
    assert site.counts() == {"ready": 1}
    with pytest.raises(CommandError, match=r"ready: only .* can be purged"):
        say("purge", "ready")


def test_pause_and_resume(site: Site, say: Any) -> None:
    assert say("pause", "mail") == "mail is paused.\n"
    assert say("pause", "mail") == "mail was already paused.\n"
    assert list(operations.paused()) == ["mail"]
    assert say("resume", "mail") == "mail is being served.\n"
    assert say("resume", "mail") == "mail was already being served.\n"


# check


def test_check_finds_that_all_is_well(site: Site, say: Any) -> None:
    site.foreman()
    shown = say("check")
    assert [line.split()[0] for line in shown.splitlines()] == ["ok"] * 7
    assert "a task: answered 'pong'" in shown
    operations.pause("default")
    assert "not sent: the queue default is paused" in say("check")


def test_check_though_all_threads_are_busy(site: Site, say: Any) -> None:
    site.foreman(NUM_WORKERS=1)
    nap.delay("nap", 60)
    wait_until(lambda: site.ledger.count("start", "nap"))
    assert "answered 'pong'" in say("check")


def test_check_finds_what_is_wrong(site: Site, settings: Any, say: Any, capsys: Any) -> None:
    def finds(words: str, *arguments: str) -> None:
        with pytest.raises(CommandError, match="Something is wrong"):
            call_command("snappea", "check", *arguments)
        assert re.search(f"^WRONG  .*{words}", capsys.readouterr().err, re.MULTILINE)

    finds("Foreman: not running; start it: python manage.py runsnappea")
    site.foreman("--queues", "mail")
    finds("not run within 0.2 s; does a Foreman serve the queue default", "--timeout", "0.2")
    assert not Task.objects.exists(), "which nobody will want later"
    assert "answered" in say("check", "--queue", "mail")
    settings.SNAPPEA = {**site.settings, "ENGINE": "rabbit"}
    finds("is 'rabbit'. It must be 'snappea' or 'celery'")
    settings.SNAPPEA = {**site.settings, "SCHEDULES": [{"task": "shop.gone", "every": 60}]}
    finds("Unknown task 'shop.gone'")
    settings.SILENCED_SYSTEM_CHECKS = ["snappea.E013"]
    assert "answered" in say("check", "--queue", "mail")
    call_command("migrate", "snappea", "zero", using="snappea", verbosity=0)
    finds("is not migrated. Run: python manage.py migrate --database=snappea")


# exit codes


def test_exit_codes_and_streams(site: Site) -> None:
    assert run(site, "check").returncode == 1
    done = run(site, "status")
    assert done.returncode == 0 and not done.stderr
    done = run(site, "show", "1")
    assert done.returncode == 1 and done.stderr.startswith("CommandError: There is no task 1")
    assert not done.stdout
    done = run(site, "enqueue", record.name, "--args", "{")
    assert done.returncode == 2 and "is not JSON" in done.stderr
    assert run(site, "run", fail.name, "--args", "[1]").returncode == 1
    assert run(site, "status", NUM_WORKERS=0).returncode == 1


def test_help_names_each_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    parser = load_command_class("snappea", "snappea").create_parser("manage.py", "snappea")
    commands = re.findall(r"^    ([a-z-]+) ", parser.format_help(), re.MULTILINE)
    (subcommands,) = (action.choices for action in parser._actions if action.dest == "command")
    assert subcommands and commands == [*subcommands]
    for command in commands:
        with pytest.raises(SystemExit, match=r"^0$"):
            parser.parse_args([command, "--help"])
        assert f"manage.py snappea {command} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["list", "failed", "--older-than", "99999999999d"], "longer than 100 years"),
        (["enqueue", record.name, "--countdown", "9" * 30], "longer than 100 years"),
        (["enqueue", record.name, "--args", "[" * 5000], "is not JSON"),
        (["cancel", "9223372036854775808"], "must be a non-negative whole number"),
        (["list", "failed", "--limit", "-1"], "must be a non-negative whole number"),
        (["run", "no.such.task"], "Unknown task"),
        (["run", record.name], "missing a required argument"),
        (["run", record.name, "--args", "[NaN]"], "which is not JSON"),
    ],
)
def test_what_makes_no_sense_is_said_without_a_traceback(site: Site, arguments: list[str], why: str) -> None:
    with pytest.raises(CommandError, match=why):
        call_command("snappea", *arguments)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_shown_once_it_takes_long(is_terminal: bool) -> None:
    shown = StringIO()
    shown.isatty = lambda: is_terminal  # type: ignore[method-assign]
    tell = console.Progress(OutputWrapper(shown), "Deleted", lambda: 1500)
    tell(1)
    assert shown.getvalue() == "", "a moment must have passed"
    for done in (500, 2000):
        tell._next = 0.0
        tell(done)
        tell(done + 1)
    tell.clear()
    first, last = "Deleted 500 of 2,000 (25%)", "Deleted 2,000 of 2,000 (100%)"
    if is_terminal:
        bars = f"\r[{'#' * 5:20}] {first}\x1b[K", f"\r[{'#' * 20}] {last}\x1b[K"
        assert shown.getvalue() == "".join(bars) + "\r\x1b[K"
    else:
        assert shown.getvalue() == f"{first}\n{last}\n"
