"""Celery as the engine: the same tasks and calls, run by a real worker with a real Redis."""

import asyncio
import pickle
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.management import call_command
from django.db import transaction
from django.test import Client, override_settings
from django.utils import timezone

from snappea import AsyncResult, Batch, task, testing
from snappea.celery import MissingCelery, beat
from snappea.celery.checks import check_celery
from snappea.celery.engine import project_app
from snappea.celery.messages import priority_of
from snappea.errors import (
    ArgumentsTooLarge,
    ConfigurationError,
    EnqueueError,
    ExtraMissing,
    ResultNotKept,
    TaskFailed,
    UnserializableArgument,
)
from snappea.models import Task
from snappea.monitoring import inspect
from snappea.tasks.function import registry
from snappea.testing import override_snappea
from tests.admin.forms import press
from tests.celerysite import CelerySite
from tests.site import DEADLINE, Process, wait_until
from tests.web import user

pytestmark = pytest.mark.long


def worker_of(site: CelerySite) -> Process:
    return site.processes[0]


def wait_for(site: CelerySite, *words: object, count: int = 1) -> None:
    wait_until(lambda: site.ledger.count(*words) >= count, f"{words} in {site.ledger.lines()}")


# calls, and what comes of them


def test_a_call_goes_to_celery_and_its_result_comes_back(celery_site: CelerySite) -> None:
    result = celery_site.tasks.add.delay(1, 2)
    assert isinstance(result, AsyncResult) and isinstance(result.id, str)
    assert result.get(timeout=DEADLINE) == 3
    assert result.status == "successful"
    row = AsyncResult(str(result.id)).refresh()
    assert row and row.result == "3" and row.finished_at and Task.objects.count() == 0
    assert AsyncResult(str(result.id)).get(timeout=DEADLINE) == 3


def test_self_of_a_bound_task(celery_site: CelerySite) -> None:
    result = celery_site.tasks.fetch.delay("x", failures=2)
    told = [str(result.id), 2, ["x"], {"failures": 2, "_caller": "alice"}, False]
    assert result.get(timeout=DEADLINE) == told
    assert [line[-1] for line in celery_site.ledger.lines() if line[0] == "start"] == ["0", "1", "2"]
    with pytest.raises(TaskFailed, match="LookupError"):
        celery_site.tasks.fetch.delay("x", failures=9, limit=1).get(timeout=DEADLINE)


def test_an_action_of_the_admin_on_many_tasks(celery_site: CelerySite) -> None:
    """On tasks that were left in the queue's table."""
    ago = timezone.now() - timedelta(minutes=1)
    Task.objects.bulk_create(Task(task_name="x", status="failed", enqueued_at=ago) for _ in range(150))
    browser = Client()
    browser.force_login(user(is_superuser=True))
    page = browser.post("/admin/snappea/task/bulk/delete/", {"q": "state:failed task:x"})
    response = press(browser, page, "sp-confirm")
    assert [str(said) for said in response.context["messages"]] == ["The action runs in the background."]
    wait_until(lambda: LogEntry.objects.filter(object_repr="150 tasks: state:failed task:x").exists())
    assert not Task.objects.filter(task_name="x").exists()


def test_each_way_to_call(celery_site: CelerySite) -> None:
    record = celery_site.tasks.record
    record.delay("delay")
    asyncio.run(record.adelay("adelay"))
    assert len(record.delay_many([("many",), ("many",)])) == 2
    record.s("signature").set(countdown=0.1).delay()
    with pytest.raises(NotImplementedError, match="its group, chord and chain"):
        record.s("chain").then(record.s("chain")).delay()
    with pytest.raises(NotImplementedError, match="its group, chord and chain"):
        record.delay_many([("many",)], batch=Batch(1))
    record.apply_async(("eta",), eta=timezone.now() + timedelta(seconds=0.2))
    with transaction.atomic():
        record.delay_on_commit("committed")
    try:
        with transaction.atomic():
            record.delay_on_commit("rolled back")
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    for key in ("delay", "adelay", "signature", "eta", "committed"):
        wait_for(celery_site, "end", key)
    wait_for(celery_site, "end", "many", count=2)
    assert celery_site.ledger.count("end", "rolled back") == 0
    assert celery_site.ledger.count("caller", "alice", record.name) >= 7  # the hooks


def test_what_arrives_is_equal(celery_site: CelerySite) -> None:
    given = {"text": "ü\x00", "list": [1, 2.5, None, True], "2026-01-01T00:00:00": {"__value__": 1}}
    assert celery_site.tasks.echo.delay((1, 2), given=given).get(timeout=DEADLINE) == [
        [[1, 2]],
        {"given": given},
    ]


def test_no_eta_is_early_and_what_has_expired_is_not_run(celery_site: CelerySite) -> None:
    record = celery_site.tasks.record
    before = timezone.now()
    result = celery_site.tasks.echo.apply_async((), countdown=0.7, result_ttl=60)
    record.apply_async(("expired",), expires=0.1, countdown=0.3)
    result.get(timeout=DEADLINE)
    assert timezone.now() - before >= timedelta(seconds=0.7)
    assert celery_site.ledger.count("end", "expired") == 0


def test_what_is_wrong_with_a_call_is_said_at_once(celery_site: CelerySite) -> None:
    record, message = celery_site.tasks.record, "a datetime, which is not JSON"
    with pytest.raises(TypeError, match="missing a required argument"):
        record.delay()
    with pytest.raises(UnserializableArgument, match=message):
        record.delay(datetime.now(UTC))
    with pytest.raises(UnserializableArgument, match="__type__"):
        record.delay({"__type__": "uuid", "__value__": "x"})
    with pytest.raises(ArgumentsTooLarge):
        record.delay("x" * 2_000_000)
    with pytest.raises(UnserializableArgument, match=message):  # called as Celery's own
        celery_site.app.tasks[record.name].delay(datetime.now(UTC))


def test_celerys_own_way_to_call_works(celery_site: CelerySite) -> None:
    add = celery_site.app.tasks["tests.proj.tasks.add"]
    assert add.delay(1, 2).get(timeout=DEADLINE) == 3
    assert celery_site.app.send_task("tests.proj.tasks.add", (1, 2)).get(timeout=DEADLINE) == 3
    celery_site.app.send_task("tests.proj.tasks.old_name", ("old",))
    wait_for(celery_site, "end", "old")


def test_options_are_translated(celery_site: CelerySite) -> None:
    tasks = celery_site.app.tasks
    late, crawl = tasks["tests.proj.tasks.record_late"], tasks["tests.proj.tasks.crawl"]
    assert (late.acks_late, late.reject_on_worker_lost, late.ignore_result) == (True, True, True)
    assert (crawl.soft_time_limit, crawl.time_limit, crawl.ignore_result) == (0.5, 50, False)
    assert tasks["tests.proj.tasks.alone"].rate_limit == "600/m"
    assert tasks["tests.proj.tasks.retry_itself"].max_retries == 1
    assert "mail" in celery_site.app.amqp.queues
    entry = celery_site.app.conf.beat_schedule["tests.proj.tasks.each_second"]
    assert entry["schedule"].run_every == timedelta(seconds=1)


@pytest.mark.parametrize(("ours", "amqp"), [(-100, 0), (-20, 4), (0, 4), (10, 5), (50, 7), (100, 9)])
def test_priorities(ours: int, amqp: int) -> None:
    assert priority_of(ours, "py-amqp") == amqp
    assert priority_of(ours, "redis") == 9 - amqp


# inside a task


def test_a_task_knows_itself(celery_site: CelerySite) -> None:
    before = timezone.now()
    result = celery_site.tasks.describe.delay(1)
    me, name, attempt, queue, parent, enqueued_at, deadline = result.get(timeout=DEADLINE)
    assert (me, name, attempt, queue) == (result.id, "tests.proj.tasks.describe", 1, "mail")
    assert parent is None and deadline is None
    assert abs(datetime.fromisoformat(enqueued_at) - before) < timedelta(seconds=5)
    wait_until(lambda: [line for line in celery_site.ledger.lines() if line[:2] == ["told", "0"]])
    (child,) = [line for line in celery_site.ledger.lines() if line[:2] == ["told", "0"]]
    assert child[5:] == ["default", me]


def test_retries(celery_site: CelerySite) -> None:
    fail_until = celery_site.tasks.fail_until
    fail_until.delay("third", 3)
    fail_until.delay("never", 99)
    fail_until.delay("other", 0)
    wait_for(celery_site, "end", "third")
    wait_for(celery_site, "start", "never", 3)
    wait_for(celery_site, "start", "other", 1)
    worker_of(celery_site).wait_for_output(r"raised unexpected: ValueError\('not yet: never'\)")
    starts = celery_site.ledger.keys("start")
    assert (starts["third"], starts["never"], starts["other"]) == (3, 3, 1)


def test_a_task_that_asks_to_be_tried_again(celery_site: CelerySite) -> None:
    retry_itself = celery_site.tasks.retry_itself
    assert retry_itself.delay("by hand", 4, 5).get(timeout=DEADLINE) == [4, None]
    with pytest.raises(TaskFailed, match="LookupError: hopeless"):
        retry_itself.delay("hopeless", 9, 2).get(timeout=DEADLINE)
    assert celery_site.ledger.keys("start")["hopeless"] == 3


def test_limits_of_time(celery_site: CelerySite) -> None:
    told, passing, killed = (
        getattr(celery_site.tasks, name).delay(*args)
        for name, args in (("crawl", ("x",)), ("crawl_on", ()), ("convert", ()))
    )
    assert told.get(timeout=DEADLINE) == "told"
    with pytest.raises(TaskFailed, match=r"SoftTimeLimitExceeded: it took more than 0\.3 s"):
        passing.get(timeout=DEADLINE)
    with pytest.raises(TaskFailed, match="TimeLimitExceeded"):
        killed.get(timeout=DEADLINE)


def test_a_task_is_revoked(celery_site: CelerySite) -> None:
    runs = celery_site.tasks.loop.delay("runs")
    wait_for(celery_site, "start", "runs")
    wait_until(lambda: runs.status == "running")
    waits = celery_site.tasks.add.apply_async((1, 2), countdown=5)
    assert waits.status == "ready" and waits.revoke() and runs.revoke(terminate=True)
    for result in (runs, waits):
        with pytest.raises(TaskFailed, match="is cancelled"):
            result.get(timeout=DEADLINE)
        assert result.status == "cancelled" and not result.revoke()
    assert celery_site.ledger.count("revoked", "runs") == 1


def test_progress(celery_site: CelerySite) -> None:
    path = celery_site.directory / "go"
    result = celery_site.tasks.report.delay(str(path))
    row: Any = wait_until(lambda: (row := result.refresh()) and row.progress_note and row)
    assert (row.status, row.progress_done, row.progress_total, row.progress_note) == (
        "running",
        3,
        10,
        "resizing",
    )
    path.touch()
    assert result.get(timeout=DEADLINE) == "done"


def test_secrets_stay_secret(celery_site: CelerySite) -> None:
    with pytest.raises(TaskFailed, match=r"ValueError: \(not shown: the task is sensitive\)") as raised:
        celery_site.tasks.fail_sensitive.delay("hunter2").get(timeout=DEADLINE)
    assert "hunter2" not in str(raised.value)
    worker_of(celery_site).wait_for_output("fail_sensitive.* raised unexpected")
    assert "hunter2" not in worker_of(celery_site).output()


def test_nothing_that_a_task_does_ends_the_worker(celery_site: CelerySite) -> None:
    with pytest.raises(TaskFailed, match="SystemExit: 3"):
        celery_site.tasks.exit_early.delay().get(timeout=DEADLINE)
    with pytest.raises(TaskFailed, match="Nothing"):
        celery_site.tasks.raise_nothing.delay().get(timeout=DEADLINE)
    with pytest.raises(TaskFailed, match="UnserializableResult"):
        celery_site.tasks.unkeepable.delay().get(timeout=DEADLINE)
    assert celery_site.tasks.add.delay(1, 2).get(timeout=DEADLINE) == 3


def test_what_acks_late_runs_again_when_its_process_has_died(celery_site: CelerySite) -> None:
    celery_site.tasks.die_once.delay("again", str(celery_site.directory / "died"))
    wait_for(celery_site, "end", "again")
    assert celery_site.ledger.keys("start")["again"] == 2


def test_what_keeps_no_result_says_so(celery_site: CelerySite) -> None:
    result = celery_site.tasks.record.delay("no result")
    assert result.status is None and result.refresh() is None
    with pytest.raises(ResultNotKept, match="result_ttl"):
        result.get(timeout=DEADLINE)
    later = celery_site.tasks.add.apply_async((1, 1), countdown=60)
    with pytest.raises(TimeoutError, match=r"has not ended within 0\.1 s"):
        later.get(timeout=0.1)
    later.revoke()


# other workers, and beat


def test_schedules_go_to_beat(celery_site: CelerySite) -> None:
    process = celery_site.celery("beat", "--loglevel", "INFO")
    wait_for(celery_site, "tick", "every", count=2)
    wait_for(celery_site, "tick", "cron", "mail", count=2)
    process.stop()
    first, second, *_ = celery_site.ledger.moments("tick", "cron", "mail")
    assert second - first > 0.5


def test_a_pool_of_threads_runs_them_too(celery_site: CelerySite) -> None:
    flags = ("--pool", "threads", "--concurrency", "1", "--queues", "threads", "--hostname", "second@%h")
    worker = celery_site.worker(*flags)
    assert celery_site.tasks.echo.apply_async((1,), queue="threads").get(timeout=DEADLINE) == [[1], {}]
    with pytest.raises(TaskFailed, match="LookupError: threads"):
        celery_site.tasks.retry_itself.apply_async(("threads", 9, 1), queue="threads").get(timeout=DEADLINE)
    worker.stop()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_ticks_are_those_of_our_own_scheduler(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = "2026-03-01 12:00:30"
    monkeypatch.setattr(beat, "now", lambda: moment)
    hourly = beat.Ticks("0 * * * *", "UTC")
    assert hourly.is_due(at("2026-03-01 11:30:00")) == (True, 3570.0)  # once for what was missed
    assert hourly.is_due(at("2026-03-01 02:30:00")) == (True, 3570.0)
    assert hourly.is_due(at("2026-03-01 12:00:00")) == (False, 3570.0)
    punctual = beat.Ticks("0 * * * *", "UTC", catch_up=False)
    assert punctual.is_due(at("2026-03-01 10:30:00")) == (True, 3570.0)
    assert beat.Ticks("30 11 * * *", "UTC", catch_up=False).is_due(at("2026-03-01 02:00:00"))[0] is False
    assert beat.Ticks("0 13 * * *", "Europe/Berlin").is_due(at("2026-03-01 11:59:00")) == (True, 86_370.0)
    assert pickle.loads(pickle.dumps(hourly)) == hourly != punctual
    assert hourly.remaining_estimate(at("2026-03-01 12:00:00")) == timedelta(seconds=3570)


# commands and checks


def test_the_foreman_leaves_it_to_celery(celery_site: CelerySite) -> None:
    process = celery_site.manage("runsnappea")
    assert process.wait() == 1
    assert "Celery workers run the tasks. Start one: celery -A proj worker" in (process.output())
    assert "Traceback" not in process.output()


def test_status_says_who_is_in_charge(celery_site: CelerySite, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("snappea", "status")
    assert "Celery is the engine" in capsys.readouterr().out


def test_the_examination_asks_celerys_workers(
    celery_site: CelerySite, capsys: pytest.CaptureFixture[str]
) -> None:
    with override_settings(TASKS={}):
        call_command("snappea", "check", "--timeout", "60")
    said = capsys.readouterr().out
    assert "ok     Celery: 1 workers answer: first@" in said and "a task: answered 'pong'" in said


def test_a_warning_when_something_was_left_behind(celery_site: CelerySite) -> None:
    assert inspect.look_for_warnings() == []
    left = Task.objects.create(task_name="some.task")
    assert inspect.look_for_warnings() == [inspect.LEFT_BEHIND]
    left.delete()


def test_tasks_of_django_are_refused(celery_site: CelerySite) -> None:
    from tests.playground import djangotasks

    with pytest.raises(ConfigurationError, match=r"is a task of django\.tasks, which Celery does not run"):
        djangotasks.add.enqueue(1, 2)


def test_while_tests_run_calls_are_kept_in_memory(celery_site: CelerySite) -> None:
    with override_snappea(IN_TESTS="collect"):
        result = celery_site.tasks.add.delay(1, 2)
        assert isinstance(result.id, int)
        testing.drain()
        assert result.get() == 3


def test_the_id_of_a_call_that_celery_was_given(celery_site: CelerySite) -> None:
    with override_snappea(ENGINE="snappea"), pytest.raises(LookupError, match="Celery is not the engine"):
        AsyncResult("an id").get()


def test_a_broker_that_is_away(celery_site: CelerySite) -> None:
    app = celery_site.app
    with app.connection_for_write("redis://127.0.0.1:1/0") as connection:
        producer = app.amqp.Producer(connection, auto_declare=False)
        with pytest.raises(EnqueueError, match="was not enqueued: Celery's broker refused it"):
            from snappea.celery.engine import _publish

            _publish(celery_site.tasks.record.call(("x",), {}), "2026-01-01", producer=producer)


def found(**settings: Any) -> dict[str, list[str]]:
    with override_snappea(ENGINE="celery", **settings), override_settings(TASKS={}):
        messages = check_celery()
    assert all(message.hint for message in messages)
    grouped: dict[str, list[str]] = {}
    for message in messages:
        grouped.setdefault(str(message.id), []).append(f"{message.msg} {message.hint}")
    return grouped


def test_what_has_no_equivalent_is_a_warning_with_names(celery_site: CelerySite) -> None:
    warnings = found(QUEUES={"mail": {"max_concurrency": 2}, "slow": {}})
    assert set(warnings) == {"snappea.W002"}
    said = "\n".join(warnings["snappea.W002"])
    for option, name in {
        "unique": "alone",
        "rate_limit": "alone",
        "max_concurrency": "by_account",
        "concurrency_key": "by_account",
        "isolate": "by_account",
        "max_memory": "by_account",
        "retry_on_kill": "robust",
        "sensitive": "fail_sensitive",
    }.items():
        assert any(
            line.startswith(f"{option} has no") and f"tests.proj.tasks.{name}" in line
            for line in said.splitlines()
        ), option
    assert 'QUEUES: "max_concurrency" has no equivalent in Celery' in said and "by: mail" in said


def test_results_that_celery_does_not_keep(celery_site: CelerySite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project_app().conf, "result_backend", None)
    (said,) = found()["snappea.W003"]
    assert "tests.proj.tasks.add" in said and ".ping" not in said and ".bulk" not in said


def test_celery_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, site: Any) -> None:
    monkeypatch.setitem(sys.modules, "celery", None)
    assert "pip install 'django-snappea[celery]'" in found()["snappea.E012"][0]
    missing = MissingCelery()
    with pytest.raises(ExtraMissing, match=r"pip install 'django-snappea\[celery\]'"):
        missing.enqueue("a call")


def test_a_project_without_an_app_and_with_tasks_of_django(celery_site: CelerySite) -> None:
    """With the settings of the other tests, which have no Celery app."""
    before = dict(celery_site.variables)
    celery_site.variables["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    try:
        process = celery_site.manage(
            "check", ENGINE="celery", HOOK_ADD_TASK_KWARGS=None, HOOK_RUN_TASK_CONTEXT=None
        )
        assert process.wait() == 1
    finally:
        celery_site.variables = before
    said = process.output()
    assert "(snappea.E015)" in said and "the project has no Celery app" in said
    assert "(snappea.E026)" in said and "and does not run its tasks" in said
    assert "Traceback" not in said


def test_a_task_that_is_made_later_is_known_as_well(celery_site: CelerySite) -> None:
    celery_site.app.finalize()
    made = task(name="tests.later", queue="late", every=5)(wait_for)
    try:
        assert celery_site.app.tasks[made.name].ignore_result
        assert "late" in celery_site.app.amqp.queues and made.name in celery_site.app.conf.beat_schedule
    finally:
        del registry[made.name]
