"""Whether stored calls fit the code: as a user sees it after a change, and each kind of call."""

import json
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from snappea import batch, schedules, task
from snappea.models import Batch, Schedule, Status, Task
from snappea.monitoring import preflight
from snappea.monitoring.preflight import examine
from snappea.queue.callbacks import packed
from snappea.queue.records import Call
from tests.playground import batched, djangotasks
from tests.playground.sensitive import SECRET, fail_with_it
from tests.playground.tasks import echo, record
from tests.projects import Project
from tests.site import Made, Site

SETTINGS = """
from pathlib import Path

BASE_DIR = Path(__file__).parent
SECRET_KEY = "only for tests"
USE_TZ = True
INSTALLED_APPS = ["snappea", "shop"]
SQLITE = "django.db.backends.sqlite3"
NAMES = ("default", "snappea")
DATABASES = {name: {"ENGINE": SQLITE, "NAME": BASE_DIR / f"{name}.sqlite3"} for name in NAMES}
DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]
"""
OLD = """
from snappea import task

@task
def ship(order): ...

@task
def charge(order: int): ...

@task
def greet(name): ...

@task
def tidy(): ...

@task(queue="slow")
def report(): ...
"""
NEW = """
from snappea import task

@task
def ship(order, carrier): ...

@task
def charge(order: str | None): ...

@task
def welcome(name): ...

@task(aliases=["shop.tasks.tidy"])
def clean_up(): ...

@task
def report(): ...
"""
ENQUEUE = """
import django
django.setup()
from shop.elsewhere import far
from shop.tasks import *
ship.delay(1), ship.apply_async((2,), countdown=600), charge.delay(1), greet.delay("ada")
tidy.delay(), report.delay(), far.delay(1)
"""
FAR = "from snappea import task\n\n@task\ndef far({}): ...\n"
FOUND = {
    "shop.elsewhere.far": "too many positional arguments",
    "shop.tasks.charge": "the argument 'order' is of type int, not NoneType or str",
    "shop.tasks.greet": "no installed app declares a @task of that name",
    "shop.tasks.report": "there is no queue 'slow' in SNAPPEA[\"QUEUES\"], only default, fast",
    "shop.tasks.ship": "missing a required argument: 'carrier'",
}


def dump(database: Path) -> list[str]:
    with sqlite3.connect(database) as connection:
        lines = list(connection.iterdump())
    connection.close()
    return lines


def test_a_project_whose_code_changed(tmp_path: Path) -> None:
    files = {"settings.py": SETTINGS, "shop/__init__.py": "", "shop/tasks.py": OLD, "enqueue.py": ENQUEUE}
    project = Project(tmp_path, {**files, "shop/elsewhere.py": FAR.format("x")})
    command = "django", "snappea", "preflight"
    code, output = project.try_to_run(*command)
    assert code == 1 and "migrate --database=snappea" in output
    project.run("django", "migrate", "--database=snappea", "-v0")
    project.run("enqueue")
    assert "All calls fit the code (ready: 6, scheduled: 1)." in project.run(*command)

    project.write("shop/tasks.py", NEW)
    project.write("shop/elsewhere.py", FAR.format(""))
    project.append("settings.py", 'SNAPPEA = {"QUEUES": {"fast": {}}}\n')
    before = dump(tmp_path / "snappea.sqlite3")
    code, output = project.try_to_run(*command)
    assert code == 1 and "Problems: 5." in output
    for name, what in FOUND.items():
        assert f"{name}: {what}\n    ready: 1" in output
    assert "ready: 1, scheduled: 1 (oldest: #1, 20" in output
    assert "snappea delete --task shop.tasks.greet" in output and "ada" not in output
    code, output = project.try_to_run(*command, "--json", "--no-types")
    found = json.loads(output.rpartition("CommandError")[0])
    assert code == 1 and {each["task"] for each in found["problems"]} == FOUND.keys() - {"shop.tasks.charge"}
    assert found["checked"] == {"ready": 6, "scheduled": 1}
    assert dump(tmp_path / "snappea.sqlite3") == before

    project.write("shop/tasks.py", OLD)
    project.write("shop/elsewhere.py", FAR.format("x"))
    project.append("settings.py", 'SNAPPEA["QUEUES"]["slow"] = {}\n')
    with project.running("python -m django runsnappea", "tasks ready"):
        assert "All calls fit the code" in project.run(*command)


def faults(**options: bool) -> dict[str, list[str]]:
    """Return what is wrong, by task."""
    by_task: dict[str, list[str]] = {}
    for problem in examine(**options).problems.values():
        by_task.setdefault(problem.task, []).append(problem.what)
    return by_task


@pytest.mark.on_both
def test_each_state_on_many_pages(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "PAGE", 2)
    for status in Status.values:
        Task.objects.create(task_name="gone.task", status=status)
        Task.objects.create(task_name=record.name, args=[1], status=status)
    report = examine()
    checked = ("ready", "scheduled", "running", "failed", "interrupted")
    assert report.checked == dict.fromkeys(checked, 2)
    (problem,) = report.problems.values()
    assert problem.rows == dict.fromkeys(checked, 1)
    assert problem.oldest == Task.objects.earliest("pk").pk and str(problem.since).startswith("20")


@pytest.mark.on_both
def test_callbacks_and_chains(site: Site) -> None:
    grow, noted, close = batched.grow, batched.noted, batched.close
    grow.s("a", "b").then(grow.s("c"), result=True).then(noted, result=True).delay()
    with batch(on_success=noted.s("done"), on_complete=close.s()):
        batched.work.delay(1)
    report = examine()
    assert report.checked == {"ready": 2, "callbacks": 4} and not report.problems

    def chain(*calls: tuple[str, str]) -> str:
        text = None
        for name, args in reversed(calls):
            text = packed(Call(name, args, "{}", "default", 0, 0), text, args.startswith("[null"))
        return str(text)

    Batch.objects.all().delete()
    ended = Batch.objects.create(on_success=chain(("gone.task", "[]")), finished_at=timezone.now())
    Batch.objects.create(on_success=chain((close.name, "[]"), (noted.name, "[1]"), (grow.name, "[null,2]")))
    Batch.objects.create(on_failure=chain((close.name, "[1]")), on_complete="[")
    Batch.objects.create(on_failure=chain((close.name, "[]")).replace('"default"', "[]"))
    Batch.objects.create(on_failure=chain((close.name, "[1]")), failure_id=1)
    assert faults() == {
        noted.name: ["the argument 'name' is of type int, not str"],
        grow.name: ["the argument 'more' is of type int, not str"],
        close.name: ["too many positional arguments"],
        "snappea_batch": ["a callback cannot be read"],
    }
    Task.objects.create(task_name=close.name, status="failed", batch_id=ended.pk)
    assert "gone.task" in faults(), "the failed member may be requeued"


@pytest.mark.on_both
def test_schedules(site: Site) -> None:
    schedules.add("well", echo, every=60, args=[1])
    schedules.add("types", echo, every=60)
    schedules.add("gone", echo, every=60)
    schedules.add("zone", echo, every=60)
    assert not faults() and examine().checked["schedules"] >= 4
    Schedule.objects.filter(name="types").update(task_name=record.name, is_added=False, args="[[]]")
    Schedule.objects.filter(name="gone").update(task_name="gone.task")
    Schedule.objects.filter(name="zone").update(expression="0 3 * * *", timezone="Mars/Base")
    found = {problem.oldest: problem.what for problem in examine().problems.values()}
    assert found.keys() == {"schedule gone", "schedule zone"}, "what is no longer in the code is removed"
    assert "no installed app" in found["schedule gone"] and "Mars/Base" in found["schedule zone"]


@pytest.mark.on_both
def test_django_tasks(site: Site) -> None:
    djangotasks.add.enqueue(1, b=2), djangotasks.tell_context.enqueue(1), djangotasks.add.enqueue(3)
    assert not faults()
    Task.objects.filter(args="[3]").update(args="[]")
    Task.objects.filter(task_name=djangotasks.tell_context.module_path).update(backend="gone")
    assert faults() == {
        djangotasks.add.module_path: ["missing a required argument: 'a'"],
        djangotasks.tell_context.module_path: ["TASKS no longer has a Snappea backend 'gone'"],
    }


def typed(
    self: Any,
    /,
    one: "int | None",
    two: float = None,  # type: ignore[assignment]  # noqa: RUF013
    *more: str,
    key: "Unknown" = 0,  # type: ignore[name-defined]  # noqa: F821
    three: Sequence[int] = (),
    **others: list[int],
) -> None: ...


@pytest.mark.parametrize(
    ("args", "kwargs", "wrong"),
    [
        ("[1]", "{}", None),
        ("[null,1]", "{}", None),
        ('[true,null,"x"]', '{"key":[],"three":"text","four":[]}', None),
        ("[]", '{"one":1,"two":2.5}', None),
        ("[1,2,[],[]]", "{}", "the argument 'more' is of type list, not str"),
        ('[1,"2"]', "{}", "the argument 'two' is of type str, not NoneType or float or int"),
        ("[{}]", "{}", "the argument 'one' is of type dict, not NoneType or int"),
        ("[1]", '{"three":3}', "the argument 'three' is of type int, not list or str"),
        ("[1]", '{"four":3}', "the argument 'others' is of type int, not list"),
        ("[]", "{}", "missing a required argument: 'one'"),
        ("[1]", '{"one":1}', "multiple values for argument 'one'"),
        ("{}", "{}", "the arguments are not a JSON list and a JSON object"),
        ("[1", "{}", "the arguments are not a JSON list and a JSON object"),
    ],
)
def test_signatures_and_types(site: Site, made: Made, args: str, kwargs: str, wrong: str | None) -> None:
    name = task(bind=True, name="tests.made.typed")(typed).name
    Task.objects.create(task_name=name, args=args, kwargs=kwargs)
    assert faults() == ({name: [wrong]} if wrong else {})
    if "is of type" in str(wrong):
        (problem,) = examine().problems.values()
        assert problem.rows == {"ready": 1} and not faults(has_types=False)


def test_a_hook_may_remove_arguments(site: Site, settings: Any) -> None:
    Task.objects.create(task_name=record.name, args=[1], kwargs={"tenant": 1})
    assert faults() == {record.name: ["got an unexpected keyword argument 'tenant'"]}
    settings.SNAPPEA |= {"HOOK_RUN_TASK_CONTEXT": "tests.playground.lifecycle.run_context"}
    assert not faults()


def test_sensitive_arguments_are_not_shown(site: Site, capsys: Any) -> None:
    Task.objects.create(task_name=fail_with_it.name, args=[{SECRET: 1}, SECRET])
    Task.objects.create(task_name=fail_with_it.name, args=[{SECRET: 1}], kwargs={"key": SECRET})
    with pytest.raises(CommandError):
        call_command("snappea", "preflight")
    shown = capsys.readouterr().out
    assert "too many positional" in shown and "'secret' is of type dict" in shown and SECRET not in shown


@pytest.mark.on_sqlite
def test_rows_written_by_hand(site: Site, capsys: Any) -> None:
    for args in ("CAST(x'5bff5d' AS text)", "x'5b5d'", "5", "'[1]'"):
        site.sql(
            f"INSERT INTO snappea_task (task_name, args, enqueued_at) VALUES (?, {args}, 'never')",
            record.name,
        )
    site.sql("INSERT INTO snappea_task (task_name, queue, enqueued_at) VALUES (CAST(x'ff0a' AS text), 1, 2)")
    with pytest.raises(CommandError):
        call_command("snappea", "preflight")
    shown = capsys.readouterr().out
    assert "not a JSON list and a JSON object\n    ready: 3 (oldest: #1, never)" in shown
    assert "\\xff\\n: no installed app" in shown
    assert Task.objects.filter(status="ready").count() == 5


def test_many_kinds_of_problems(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "MOST", 3)
    for name in "abcde":
        Task.objects.create(task_name=name)
    counts = {problem.task: problem.rows["ready"] for problem in examine().problems.values()}
    assert counts == {"a": 1, "b": 1, "c": 1, "others": 2}


def test_isolated_tasks_need_fork(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    Task.objects.create(task_name=batched.grow_isolated.name, args=["a", "b"])
    assert not faults()
    monkeypatch.delattr(os, "fork")
    assert "has no os.fork()" in faults()[batched.grow_isolated.name][0]


@pytest.mark.on_both
def test_before_migrate(site: Site, capsys: Any) -> None:
    record.delay(1)
    site.sql("DELETE FROM django_migrations WHERE app = 'snappea' AND name LIKE '0007%'")
    call_command("snappea", "preflight", "--json")
    output, errors = capsys.readouterr()
    assert json.loads(output) == {"problems": [], "checked": {"ready": 1}}
    assert "is out of date: the migration 0007" in errors
    site.sql("ALTER TABLE snappea_schedule RENAME COLUMN is_added TO added")
    with pytest.raises(CommandError, match="is out of date: the migration 0007"):
        call_command("snappea", "preflight")
