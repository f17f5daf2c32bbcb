"""The django.tasks backend fulfills Django's contract."""

import asyncio
import dataclasses
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from django import VERSION
from django.conf import settings as django_settings
from django.http import QueryDict
from django.utils import timezone

from snappea import errors
from snappea.django_tasks import backend as backends
from snappea.django_tasks import framework
from snappea.django_tasks.backend import OWN, SnappeaBackend, SnappeaTask
from snappea.django_tasks.framework import (
    AnyResult,
    InvalidTask,
    TaskResultDoesNotExist,
    TaskResultMismatch,
    TaskResultStatus,
    task_backends,
)
from snappea.models import Status, Task
from snappea.queue import operations
from snappea.queue.database import connect, file_of
from snappea.queue.logbook import Logbook, Note
from snappea.queue.records import Claim
from snappea.tasks.discovery import resolve
from snappea.tasks.options import Options
from tests.playground import djangotasks as tasks
from tests.site import ROOT, Site, wait_until

READY, RUNNING = TaskResultStatus.READY, TaskResultStatus.RUNNING
FAILED, SUCCESSFUL = TaskResultStatus.FAILED, TaskResultStatus.SUCCESSFUL
HERE = "tests.playground.djangotasks"
declare: Any = vars(tasks)["task"]
HAS_OPTIONS = pytest.mark.skipif((6, 0) <= VERSION < (6, 1), reason="@task of Django 6.0 takes no options")


@pytest.fixture(autouse=True)
def fresh_backends(settings: Any) -> None:
    """Create new backends for each test."""
    settings.TASKS = django_settings.TASKS


def ended(result: Any) -> Any:
    """Wait until a result has finished, and return it."""

    def look() -> bool:
        result.refresh()
        return bool(result.is_finished)

    wait_until(look, f"the end of {result}")
    return result


def told(site: Site, name: str, task_id: str) -> list[list[str]]:
    """Return what the receivers got: sender, status, status of the row, exception."""
    lines = (line for line in site.ledger.lines() if line[0] == name and line[2] == task_id)
    return [[who, *rest] for _name, who, _id, *rest in lines]


# the contract


def test_what_it_can_do() -> None:
    able = task_backends["default"]
    assert able.supports_defer and able.supports_async_task
    assert able.supports_get_result and able.supports_priority


@pytest.mark.parametrize("enqueue", [tasks.add, tasks.add_slowly, tasks.add.using(isolate=True)])  # type: ignore[call-arg]
def test_a_task_is_run_and_its_result_is_there(site: Site, enqueue: Any) -> None:
    result = enqueue.enqueue(1, b=2)
    assert (result.status, result.args, result.kwargs, result.attempts) == (READY, [1], {"b": 2}, 0)
    assert isinstance(result.id, str) and 0 < len(result.id) < 64
    assert (result.started_at, result.last_attempted_at, result.finished_at) == (None, None, None)
    assert result == enqueue.get_result(result.id)
    site.foreman()
    ended(result)
    assert (result.status, result.return_value, result.errors) == (SUCCESSFUL, 3, [])
    assert result.enqueued_at <= result.started_at == result.last_attempted_at <= result.finished_at
    assert len(result.worker_ids) == result.attempts == 1
    assert Task.objects.get().queue == "default"


def test_the_result_is_the_same_from_any_process(site: Site) -> None:
    site.foreman()
    result = ended(tasks.add.enqueue(1, 2))
    other = site.program(
        f"from {HERE} import add, echo\nfrom snappea.django_tasks.framework import *\n"
        f"print(add.get_result({result.id!r}).return_value)\n"
        f"try: echo.get_result({result.id!r})\nexcept TaskResultMismatch: print('mismatch')\n"
        "try: echo.get_result('777')\nexcept TaskResultDoesNotExist: print('none')\n"
    )
    assert other.wait() == 0, other.output()
    assert other.output().split() == ["3", "mismatch", "none"]


def test_arguments_are_what_json_makes_of_them(site: Site) -> None:
    result = tasks.echo.enqueue((1, (2,)), b"bytes", key={"a": (None, True, 1.5)})
    assert result.args == [[1, [2]], "bytes"] and result.kwargs == {"key": {"a": [None, True, 1.5]}}
    assert tasks.echo.get_result(result.id).args == result.args
    site.foreman()
    assert ended(result).return_value == [result.args, result.kwargs]


@pytest.mark.parametrize("value", [datetime.now(), {1}, object(), float("nan"), {1: 2}, "\ud800"])
def test_what_is_not_json_is_refused_and_nothing_is_written(site: Site, value: Any) -> None:
    with pytest.raises(TypeError):
        tasks.echo.enqueue([value])
    assert site.counts() == {}


def test_arguments_may_be_too_large(site: Site) -> None:
    with pytest.raises(errors.ArgumentsTooLarge):
        tasks.echo.enqueue("x" * 2_000_000)
    assert site.counts() == {}


def test_a_return_value_that_is_not_json_is_a_failure(site: Site) -> None:
    site.foreman()
    result = ended(tasks.return_a_set.enqueue())
    assert result.status == FAILED and result.errors[0].exception_class is TypeError
    assert "Unsupported type" in result.errors[0].traceback
    assert ended(tasks.return_a_tuple.enqueue()).return_value == [1, [2, 3], "bytes"]


def test_a_failure_is_kept(site: Site) -> None:
    site.foreman()
    result = ended(tasks.fail.enqueue("the reason"))
    assert (result.status, result.attempts, len(result.errors)) == (FAILED, 1, 1)
    assert result.errors[0].exception_class is ValueError
    assert result.errors[0].traceback.endswith("ValueError: the reason\n")
    with pytest.raises(ValueError, match="Task failed"):
        assert result.return_value


def test_it_is_ready_while_it_waits_for_a_retry(site: Site, tmp_path: Any) -> None:
    task = tasks.fail_once.using(autoretry_for=(ConnectionError,), default_retry_delay=1)  # type: ignore[call-arg]
    result: Any = task.enqueue(str(tmp_path / "once"))
    site.foreman()
    wait_until(lambda: Task.objects.get().status == Status.SCHEDULED)
    result.refresh()
    assert (result.status, result.attempts, result.finished_at) == (READY, 1, None)
    assert [error.exception_class for error in result.errors] == [ConnectionError]
    first: Any = result.started_at
    ended(result)
    assert (result.status, result.return_value) == (SUCCESSFUL, "the second time")
    assert (result.attempts, len(result.worker_ids), len(result.errors)) == (2, 2, 1)
    assert "ConnectionError: the first time" in result.errors[0].traceback
    assert result.started_at == first < result.last_attempted_at <= result.finished_at
    assert result.task == task, "its options came along"


def test_each_failed_attempt_is_an_error_with_its_traceback(site: Site) -> None:
    site.foreman()
    result = ended(tasks.fail_with_key.enqueue("x"))
    assert (result.status, result.attempts) == (FAILED, 2), "OPTIONS: KeyError, once more"
    assert [error.exception_class for error in result.errors] == [KeyError, KeyError]
    assert all(error.traceback.endswith("KeyError: 'x'\n") for error in result.errors)


@pytest.mark.parametrize("name", ["tell_context", "tell_context_slowly"])
def test_the_context_is_there_if_it_is_taken(site: Site, name: str) -> None:
    site.foreman()
    result = ended(getattr(tasks, name).enqueue())
    assert result.return_value[:2] == [result.id, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        *({"priority": value} for value in ("high", True, 1.5, float("nan"), 101)),
        *({"run_after": value} for value in ("2100-01-01", date(2100, 1, 1), 60, datetime(2100, 1, 1))),
        {"queue_name": 3},
        {"result_ttl": "1h"},
        {"retry_backoff_factor": 0},
    ],
    ids=str,
)
def test_values_of_using_that_make_no_sense(site: Site, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidTask):
        tasks.add.using(**wrong)


def test_the_data_of_a_form_is_refused(site: Site) -> None:
    for form in (QueryDict("tag=a&tag=b"), {"form": [QueryDict("")]}):
        with pytest.raises(TypeError, match=r"argument is a QueryDict with several values.*pass \.dict\(\)"):
            tasks.echo.enqueue(form)
    assert Task.objects.count() == 0


def test_priority_queue_and_time(site: Site) -> None:
    due = timezone.now() + timedelta(hours=1)
    result = tasks.echo.using(priority=-5, run_after=due).enqueue()
    row = Task.objects.get()
    assert (row.status, row.priority, row.queue, row.run_after) == ("scheduled", -5, "mail", due)
    assert result.status == READY
    found = tasks.echo.get_result(result.id)
    assert found == result and found.task.run_after == due
    operations.requeue(Task.objects.all())
    assert tasks.echo.get_result(result.id).task.run_after == due, "as it was enqueued"


def test_in_coroutines(site: Site) -> None:
    async def use() -> None:
        result = await tasks.add.aenqueue(1, 2)
        assert await tasks.add.aget_result(result.id) == result
        assert tasks.add.get_result(result.id) == result, "Django's own tests ask so as well"
        result.refresh()
        await result.arefresh()

    asyncio.run(use())
    assert site.counts() == {"ready": 1}


@pytest.mark.parametrize("wrong", ["", "x", "-1", "007", "1.0", "٣", " 1", "9" * 30, "1; DROP TABLE x", None])
def test_there_is_no_result_of_a_wrong_id(site: Site, wrong: Any) -> None:
    for _ in range(9):
        tasks.add.enqueue(1)
    with pytest.raises(TaskResultDoesNotExist):
        tasks.add.get_result(wrong)


def test_results_of_others_are_not_ours(site: Site) -> None:
    row = Task.objects.create(task_name=f"{HERE}.add", args=[1])
    other = tasks.add.using(backend="short").enqueue(1)
    for wrong in str(row.pk), other.id:
        with pytest.raises(TaskResultDoesNotExist):
            tasks.add.get_result(wrong)
    assert task_backends["short"].get_result(other.id) == other
    with pytest.raises(TaskResultMismatch):
        tasks.add_slowly.using(backend="short").get_result(other.id)


def test_a_task_that_is_gone_is_a_mismatch(site: Site) -> None:
    result = tasks.add.enqueue(1)
    for name in f"{HERE}.plain", f"{HERE}.gone", "os.system":
        site.sql("UPDATE snappea_task SET task_name = ?", name)
        with pytest.raises(TaskResultMismatch):
            tasks.add.get_result(result.id)
    site.foreman()
    wait_until(lambda: site.counts() == {"failed": 1})
    assert "Unknown task" in Task.objects.get().error


def test_a_result_can_be_pickled(site: Site) -> None:
    if VERSION >= (6, 1):
        result = tasks.add.using(max_retries=1).enqueue(1)  # type: ignore[call-arg]
        assert pickle.loads(pickle.dumps(result)) == result


# what cuts a task off


def test_an_interrupted_task_has_failed(site: Site) -> None:
    foreman = site.foreman()
    result = tasks.sleep.enqueue(60)
    wait_until(lambda: site.ledger.count("sleeps", result.id))
    result.refresh()
    assert (result.status, result.attempts) == (RUNNING, 1)
    foreman.kill()
    foreman = site.foreman()
    ended(result)
    assert (result.status, result.attempts) == (FAILED, 1)
    (error,) = result.errors
    assert error.exception_class is errors.TaskInterrupted
    assert error.traceback == "The Foreman died while this task ran."
    wait_until(lambda: told(site, "finished", result.id))
    assert told(site, "finished", result.id) == [["SnappeaBackend", "FAILED", "FAILED", "TaskFailed"]]

    again = tasks.sleep.enqueue(60)
    wait_until(lambda: site.ledger.count("sleeps", again.id))
    foreman.send(15)
    foreman.wait_for_output("Stopping")  # two signals at once would be one
    foreman.send(15)
    foreman.wait()
    assert ended(again).errors[0].exception_class is errors.TaskInterrupted
    assert len(told(site, "finished", again.id)) == 1, "told before it left"


def test_a_cancelled_task_has_failed(site: Site) -> None:
    site.foreman()
    result = tasks.sleep.enqueue(60)
    wait_until(lambda: site.ledger.count("sleeps", result.id))
    operations.terminate(Task.objects.all())
    ended(result)
    assert (result.status, Task.objects.get().status) == (FAILED, "cancelled")
    assert result.errors[0].exception_class is errors.TaskRevoked
    wait_until(lambda: told(site, "finished", result.id))


def test_own_limits_hold(site: Site) -> None:
    site.foreman()
    soft = tasks.sleep.using(soft_time_limit=0.2).enqueue(60)  # type: ignore[call-arg]
    hard = tasks.sleep.using(time_limit=0.3).enqueue(60)  # type: ignore[call-arg]
    assert ended(soft).errors[0].exception_class is errors.SoftTimeLimitExceeded
    assert ended(hard).errors[0].exception_class is errors.TaskKilled


# signals


def test_signals_tell_what_the_row_says_and_receivers_harm_nothing(site: Site) -> None:
    heard: list[tuple[Any, str, str, str]] = []

    def hear(sender: Any, task_result: AnyResult, **kwargs: Any) -> None:
        stored = task_result.task.get_backend().get_result(task_result.id)
        heard.append((sender, task_result.id, task_result.status, stored.status))
        raise RuntimeError("a receiver that raises")

    framework.task_enqueued.connect(hear)
    try:
        good = tasks.add.enqueue(1, 2)
        bad = tasks.fail.using(backend="short").enqueue("x")
        slow = tasks.add_slowly.enqueue(1, 2)
    finally:
        framework.task_enqueued.disconnect(hear)
    assert heard[:2] == [
        (SnappeaBackend, good.id, READY, READY),
        (tasks.ShortBackend, bad.id, READY, READY),
    ]
    foreman = site.foreman()
    for result in good, bad, slow:
        ended(result)
    assert foreman.stop() == 0
    for result in good, slow:
        assert told(site, "started", result.id) == [["SnappeaBackend", "RUNNING", "RUNNING", "NoneType"]]
        assert told(site, "finished", result.id) == [
            ["SnappeaBackend", "SUCCESSFUL", "SUCCESSFUL", "NoneType"]
        ]
    assert told(site, "started", bad.id) == [["ShortBackend", "RUNNING", "RUNNING", "NoneType"]]
    assert told(site, "finished", bad.id) == [["ShortBackend", "FAILED", "FAILED", "ValueError"]]


def test_what_ended_as_the_foreman_died_is_told_by_the_next(site: Site) -> None:
    good: Any = tasks.add.enqueue(1, 2)
    bad: Any = tasks.fail.enqueue("x")
    foreman = site.foreman("-v0")
    ended(good), ended(bad)
    foreman.kill()
    # as if it had died after the tasks had ended, and before that was written
    file = file_of(connect())
    assert file
    logbook = Logbook(file, 8)
    for task_id, note in (good.id, Note.SUCCEEDED), (bad.id, Note.FAILED):
        ((moment,),) = site.sql("SELECT started_at FROM snappea_task WHERE id = ?", task_id)
        site.sql(
            "UPDATE snappea_task SET status = 'running', result = NULL, errors = '' WHERE id = ?", task_id
        )
        claim = Claim(0, int(task_id), 1, "", "", "", started_at=moment)
        logbook.note(logbook.enter(claim), note)
    site.ledger.path.unlink()
    site.foreman()
    assert ended(good).status == SUCCESSFUL and good.return_value is None
    assert (ended(bad).status, len(bad.errors)) == (FAILED, 1)
    wait_until(lambda: told(site, "finished", good.id) and told(site, "finished", bad.id))
    assert told(site, "finished", good.id) == [["SnappeaBackend", "SUCCESSFUL", "SUCCESSFUL", "NoneType"]]
    assert told(site, "finished", bad.id) == [["SnappeaBackend", "FAILED", "FAILED", "TaskFailed"]]


def test_a_retry_is_no_end(site: Site) -> None:
    foreman = site.foreman()
    result = ended(tasks.fail_with_key.enqueue("x"))
    foreman.stop()
    assert len(told(site, "started", result.id)) == 2
    assert told(site, "finished", result.id) == [["ShortBackend", "FAILED", "FAILED", "KeyError"]]


# options


def test_own_options_are_those_of_snappea_but_for_what_django_names() -> None:
    theirs = {"name", "queue", "priority", "aliases", "cron", "every", "timezone", "catch_up", "schedulable"}
    theirs |= {"bind", "ignore_result", "track_started"}  # Celery's
    assert set(OWN) == {field.name for field in dataclasses.fields(Options)} - theirs


@HAS_OPTIONS
def test_options_of_the_decorator(site: Site) -> None:
    function: Any = tasks.add.func
    made: Any = declare(max_retries=7, unique=True, autoretry_for=[OSError])
    task = made(function)
    assert isinstance(task, SnappeaTask) and (task.max_retries, task.unique) == (7, True)
    options = task_backends["default"].options_of(task)  # type: ignore[attr-defined]
    assert (options.max_retries, options.autoretry_for, options.result_ttl) == (7, (OSError,), 86_400)
    assert "max_retries=7" in repr(task) and "isolate" not in repr(task)
    with pytest.raises(InvalidTask, match="max_retries='x' must be a whole number"):
        declare(max_retries="x")(function)
    with pytest.raises(TypeError):
        declare(max_retrys=1)(function)


@HAS_OPTIONS
def test_options_of_the_decorator_count_when_it_runs(site: Site) -> None:
    site.foreman()
    result = ended(vars(tasks)["flaky"].enqueue())
    assert (result.status, result.attempts, len(result.errors)) == (FAILED, 3, 3)
    assert Task.objects.get().overrides is None, "they are in the code"


def test_options_of_using(site: Site) -> None:
    add: Any = tasks.add
    assert add.using(max_retries=None).max_retries is None
    assert add.using(max_retries=2).using(priority=3).max_retries == 2
    with pytest.raises(TypeError, match=r"^SnappeaTask.*unexpected keyword argument 'nonsense'"):
        tasks.add.using(**dict[str, Any](nonsense=1))
    with pytest.raises(InvalidTask, match="time_limit"):
        add.using(time_limit=-1)
    with pytest.raises(TypeError):
        add.using(time_limits=1)
    result = add.using(acks_late=True, max_concurrency=2, expires=timedelta(hours=1)).enqueue(1)
    row = Task.objects.get()
    assert (row.acks_late, row.lane, row.lane_limit) == (True, add.module_path, 2)
    assert row.expires_at and row.expires_at > timezone.now()
    assert json.loads(row.overrides) == {"acks_late": True, "max_concurrency": 2}
    assert add.get_result(result.id).task.max_concurrency == 2


def test_a_unique_call_is_enqueued_once(site: Site) -> None:
    task: Any = tasks.tell_context.using(unique=True)  # type: ignore[call-arg]
    first = task.enqueue(1)
    assert task.enqueue(1) == first and task.enqueue(2).id != first.id
    assert site.counts() == {"ready": 2}


def test_defaults_are_in_options(settings: Any, site: Site) -> None:
    options = {"RESULT_TTL": 5, "soft_time_limit": 3}
    settings.TASKS = {"default": {"BACKEND": "snappea.backend.SnappeaBackend", "OPTIONS": options}}
    tasks.add.enqueue(1)
    assert Task.objects.get().result_ttl == 5
    function = task_backends["default"].function_of(tasks.add)  # type: ignore[attr-defined]
    assert function.soft_time_limit("default") == 3
    settings.TASKS["default"]["OPTIONS"] = {"SOFT_TIME": 3}
    settings.TASKS = settings.TASKS
    with pytest.raises(InvalidTask, match="unknown key 'soft_time'"):
        tasks.add.enqueue(1)


def test_a_task_is_validated_again_when_it_is_enqueued(settings: Any, site: Site) -> None:
    task = tasks.add.using(queue_name="mail")
    settings.TASKS = {"default": {"BACKEND": "snappea.backend.SnappeaBackend", "QUEUES": ["default"]}}
    with pytest.raises(InvalidTask, match="Queue 'mail' is not valid"):
        task.enqueue(1)
    settings.TASKS = {"default": {"BACKEND": "snappea.backend.SnappeaBackend", "QUEUES": []}}
    settings.SNAPPEA = {**site.settings, "QUEUES": {"reports": {}}}
    with pytest.raises(InvalidTask, match="add it to SNAPPEA"):
        task.enqueue(1)
    assert site.counts() == {}


def test_only_what_the_foreman_finds_is_enqueued(site: Site) -> None:
    hidden = declare(tasks.plain)
    with pytest.raises(InvalidTask, match="the Foreman would not find it"):
        hidden.enqueue()
    done = subprocess.run(
        [sys.executable, "-c", "import django; django.setup()\n"
         f"from {HERE} import task\ntry:\n @task\n def f(): ...\nexcept Exception as error: print(error)"],
        env=site.environment(), cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "defined in a script" in done.stdout


# rows and names


def test_names_lead_to_tasks_of_our_backends_only(site: Site) -> None:
    assert resolve(f"{HERE}.add").function is tasks.add.func
    for name in ("for_others", "plain", "task", "ShortBackend", "gone"):
        with pytest.raises(errors.UnknownTask):
            resolve(f"{HERE}.{name}")
    result = tasks.for_others.using(backend="short").enqueue()
    site.foreman()
    assert ended(result).return_value == "run by ours"


def test_a_row_made_by_hand_runs(site: Site) -> None:
    row = Task.objects.create(task_name=f"{HERE}.tell_context", args=[1], result_ttl=60)
    site.foreman()
    wait_until(lambda: site.counts() == {"successful": 1})
    assert json.loads(Task.objects.get().result) == [str(row.pk), 1, [1], "default", "tell_context"]


def test_a_schedule_may_name_a_task(site: Site) -> None:
    call = resolve(f"{HERE}.echo").call((1,), {})
    assert (call.queue, call.priority, call.extras and call.extras.backend) == ("mail", 7, "default")
    with pytest.raises(TypeError):
        resolve(f"{HERE}.tell_context").call((), {"context": 1, "unknown": 2})


def test_a_backend_that_is_gone_makes_its_tasks_unknown(site: Site) -> None:
    tasks.add.enqueue(1)
    site.sql("UPDATE snappea_task SET backend = 'gone'")
    site.foreman()
    wait_until(lambda: site.counts() == {"failed": 1})
    assert "TASKS no longer has a Snappea backend 'gone'" in Task.objects.get().error


def test_results_go_after_their_time(site: Site) -> None:
    site.foreman()
    short = tasks.add.using(backend="short").enqueue(1)
    fleeting = tasks.add.using(backend="fleeting").enqueue(1)
    wait_until(lambda: told(site, "finished", short.id) and told(site, "finished", fleeting.id))
    wait_until(lambda: site.counts() == {})
    with pytest.raises(TaskResultDoesNotExist):
        short.refresh()


def test_eager_tasks_run_where_they_are_enqueued(settings: Any, site: Site) -> None:
    settings.SNAPPEA = {**site.settings, "TASK_ALWAYS_EAGER": True}
    for add in tasks.add, tasks.add_slowly:
        assert add.enqueue(1, 2).return_value == 3
    result = tasks.fail.enqueue("x")
    assert (result.status, result.attempts, result.errors[0].exception_class) == (FAILED, 1, ValueError)
    seen = tasks.tell_context.enqueue(5)
    assert seen.return_value == [seen.id, 1, [5], "default", "tell_context"]
    assert site.counts() == {}


# imports


CONFIGURE = """
import sys
from django.conf import settings
settings.configure(TASKS={"default": {"BACKEND": "snappea.backend.SnappeaBackend"}})
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tasks_can_be_declared_before_there_are_models() -> None:
    code = f"""{CONFIGURE}
from {django_settings.FRAMEWORK} import task
sys.modules["early"] = type(sys)("early")
exec("def f(): ...", early := vars(sys.modules["early"]))
early["f"] = task(early["f"])
print(type(early["f"]).__name__, "snappea.models" in sys.modules)
"""
    assert run(code) == "SnappeaTask False\n"


def test_without_the_setting_nothing_of_it_is_imported(site: Site) -> None:
    code = """
import django; from django.conf import settings
settings.configure(INSTALLED_APPS=["snappea"], DATABASES={"default": {}, "snappea": {
    "ENGINE": "django.db.backends.sqlite3", "NAME": "x"}}); django.setup()
import snappea.foreman.loop, snappea.checks, sys
print({"snappea.django_tasks.framework", "snappea.django_tasks.backend", "django_tasks"} & set(sys.modules))
"""
    assert run(code) == "set()\n"


@pytest.mark.skipif(VERSION >= (6, 0), reason="Django has django.tasks")
def test_where_the_package_is_missing_the_error_names_the_extra() -> None:
    code = f"""{CONFIGURE}
sys.modules["django_tasks"] = None
try: import snappea.backend
except ImportError as error: print(error)
"""
    assert "pip install 'django-snappea[django-tasks]'" in run(code)


# checks


@pytest.fixture
def checked(settings: Any) -> Iterator[Any]:
    """Return a function that returns the ids of the checks that a backend with these parameters fails."""

    def check(**params: Any) -> list[str]:
        settings.TASKS = {"default": {"BACKEND": "snappea.backend.SnappeaBackend", **params}}
        return [str(message.id) for message in task_backends["default"].check()]

    yield check


def test_nothing_is_wrong_here(checked: Any) -> None:
    assert checked() == []


def test_what_is_missing_is_named(checked: Any, settings: Any) -> None:
    settings.DATABASE_ROUTERS = []
    assert checked() == ["snappea.E023"]
    settings.SNAPPEA = {"DATABASE": "elsewhere", "QUEUES": {"mail": {}}}
    assert checked() == ["snappea.E022"]
    assert checked(QUEUES=["mail", "reports", ""]) == ["snappea.E022", "snappea.E024", "snappea.E024"]
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "snappea"]
    assert checked() == ["snappea.E021", "snappea.E022"]


@pytest.mark.parametrize("options", [{"MAX_RETRIES": "x"}, {"name": "x"}, {"RESULT_TTL": -1}])
def test_wrong_options_are_named(checked: Any, options: dict[str, Any]) -> None:
    assert checked(OPTIONS=options) == ["snappea.E025"]


def test_the_module_says_who_it_is() -> None:
    assert backends.SnappeaBackend.task_class is SnappeaTask
