"""The manual's blocks of code, copied and pasted as a newcomer would, in a project made by startproject."""

import contextlib
import re
import shutil
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from django import VERSION
from django.core.management import load_command_class

from tests.docs.manual import TEXT as README
from tests.projects import Project, Running
from tests.servers import Postgres
from tests.site import ROOT

pytestmark = pytest.mark.long


class Block(NamedTuple):
    """What stands between three backticks. `heading`: the one above it, "" on the first screen."""

    heading: str
    language: str
    text: str


def _blocks() -> Iterator[Block]:
    heading = ""
    for found in re.finditer(r"^##+ ([^\n]*)$|^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        if found[3] is None:
            heading = found[1]
        else:
            yield Block(heading, found[2], found[3])


BLOCKS = list(_blocks())
#: Under which headings there are blocks, and who runs them; in this file they unpack all that are there.
RUN_BY = {
    "": "CI, by these very lines; what they say is checked by test_readme",
    "Set-up in a project": "newcomer, test_set_up",
    "AsyncResult": "test_tasks",
    "Again: retries": "test_tasks",
    "Time limits": "test_tasks",
    "Processes of their own": "test_tasks",
    "Again and again: periodic tasks": "test_tasks",
    "States": "test_what_people_decide",
    "Tests of your project": "test_user_projects",
    "Django's own tasks": "test_tasks_of_django",
    "Sentry and OpenTelemetry": "test_tracing",
    "What a task leaves behind": "test_tasks",
    "Health and metrics": "test_health_and_metrics",
    "In production": "nobody, for there is neither systemd nor Docker; test_deploy tries the files",
    "Backup": "test_backup; test_care while much is written",
    "PostgreSQL as the queue": "test_postgres_as_the_queue",
    "The queue in the main database": "test_the_main_database",
    "Celery runs the tasks": "test_celery_runs_the_tasks",
    "Handing over": "test_celery_runs_the_tasks",
    "Working on Snappea": "nobody, for it is our own tests, thirty times: test_what_is_not_run",
}
#: Lines that are not run, and why.
NOT_RUN = {
    "pip install ": "what it installs is here: test_what_is_not_run",
    "python manage.py runsnappea": "it does not end: it runs beside what follows",
    "celery -A proj ": "the same",
}


def of(heading: str) -> list[str]:
    """Return the blocks below a heading, in their order."""
    return [block.text for block in BLOCKS if block.heading == heading]


def commands(block: str) -> str:
    """Return what can be run of a block for the shell."""
    return "\n".join(line for line in block.splitlines() if not line.startswith(tuple(NOT_RUN)))


def test_no_block_slips_by() -> None:
    ours = {block.heading for block in BLOCKS if not _is_only_our_modules(block)}
    assert ours == RUN_BY.keys()
    assert {block.language for block in BLOCKS} == {"python", ""}


def _is_only_our_modules(block: Block) -> bool:
    """Tell whether a block only runs modules of our own tests, as in `python -m tests.soak`."""
    modules = [re.match(r"python -m (tests\.\w+)", line) for line in block.text.splitlines()]
    return not block.language and all(found and find_spec(found[1]) for found in modules)


def test_what_is_not_run() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set(re.findall(r"snappea\[([\w,-]+)\]", README))
    assert named and {name for names in named for name in names.split(",")} <= extras.keys()
    files = re.findall(r"tests/\w+\.py", "".join(of("Working on Snappea")))
    assert files and all((ROOT / file).exists() for file in files)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory in which somebody has done what is said of the set-up, up to the Foreman."""
    project = Project(tmp_path_factory.mktemp("newcomer"), {}, "proj.settings")
    install, settings, tasks, start, _call = of("Set-up in a project")
    project.shell(f"django-admin startproject proj .\n{commands(install)}")
    project.append("proj/settings.py", settings)
    project.write("mail/tasks.py", tasks)
    assert "snappea.I001" in project.shell(commands(start)), "its database is missing until migrate has run"
    assert "no issues" in project.shell("python manage.py check")
    return project.directory


@pytest.fixture
def newcomer(made: Path, tmp_path: Path) -> Project:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return Project(tmp_path, {}, "proj.settings")


@contextlib.contextmanager
def foreman(project: Project) -> Iterator[Running]:
    with project.running("python manage.py runsnappea", "tasks ready") as running:
        yield running
    assert running.popen.returncode == 0, running.output()


def test_set_up(newcomer: Project) -> None:
    _install, _settings, _tasks, start, call = of("Set-up in a project")
    assert start.endswith("python manage.py runsnappea\n")
    with foreman(newcomer) as running:
        newcomer.shell(call)
        running.wait_for_output("Finished mail.tasks.send_mail #1")
        assert "A mail to user 42" in running.output()


def test_tasks(newcomer: Project) -> None:
    """The examples of what @task can do, all in one tasks.py."""
    add, get = of("AsyncResult")
    (retries,), (limited,), (isolated,) = map(of, ("Again: retries", "Time limits", "Processes of their own"))
    periodic, schedules = of("Again and again: periodic tasks")
    (fresh_threads,) = of("What a task leaves behind")
    newcomer.append("mail/tasks.py", "\n".join(["", add, retries, limited, isolated, periodic]))
    newcomer.append("proj/settings.py", fresh_threads + schedules)
    newcomer.write("page", "a page")
    newcomer.shell("python manage.py check")
    with foreman(newcomer) as running:
        assert newcomer.shell(get).splitlines()[-1] == "3"
        for call in (
            f"fetch --args '[\"file://{newcomer.directory}/page\"]'",
            "fetch --args '[\"file:///nowhere\"]'",
            "charge --args '[1]'",
            "crawl --args '[1000]'",
            "convert --args '[1]'",
        ):
            newcomer.shell(f"python manage.py snappea enqueue mail.tasks.{call}")
        for name in ("fetch", "crawl", "convert"):
            running.wait_for_output(f"Finished mail.tasks.{name}")
        newcomer.shell("python manage.py snappea enqueue mail.tasks.charge --args '[1, true]' --wait")
        assert "mail.tasks.charge" in newcomer.shell("python manage.py snappea list scheduled")
        assert "URLError" in newcomer.shell("python manage.py snappea show 3"), "it has been tried again"
        planned = newcomer.shell("python manage.py snappea schedules")
    names = ["poll", "sweep", "send_mail", "add now and then"]
    assert not [name for name in names if name not in planned]


def test_what_people_decide(newcomer: Project) -> None:
    (decisions,) = of("States")
    newcomer.write("decide.py", decisions)
    newcomer.shell("python manage.py snappea enqueue mail.tasks.send_mail --args '[1]' --queue mail")
    newcomer.shell("python manage.py shell < decide.py")
    assert not newcomer.shell("python manage.py snappea list ready --json").strip(" []\n"), "it was cancelled"


def test_tasks_of_django(newcomer: Project) -> None:
    settings, tasks = of("Django's own tasks")
    if VERSION < (6, 0):
        tasks = tasks.replace("django.tasks", "django_tasks")
    newcomer.append("proj/settings.py", settings)
    newcomer.write("mail/tasks.py", tasks)
    newcomer.shell("python manage.py check")
    with foreman(newcomer):
        code = "from mail.tasks import send_at_once; print(send_at_once(42))"
        assert newcomer.shell(f'python manage.py shell -c "{code}"').splitlines()[-1] == "42"


def test_health_and_metrics(newcomer: Project) -> None:
    (urls,) = of("Health and metrics")
    newcomer.append("proj/urls.py", urls)
    newcomer.append("proj/settings.py", 'SNAPPEA["MONITORING_TOKEN"] = "open"\nALLOWED_HOSTS = ["*"]\n')
    ask = (
        "from django.test import Client\n"
        "print([Client().get(path, headers=headers).status_code"
        " for headers in ({}, {'Authorization': 'Bearer open'}) for path in ('/health/', '/metrics/')])"
    )
    with foreman(newcomer):
        answers = newcomer.run("django", "shell", "-c", ask)
    assert answers.splitlines()[-1] == "[403, 403, 200, 200]", answers


@pytest.mark.needs("sqlite3")
def test_backup(newcomer: Project) -> None:
    (copies,) = of("Backup")
    with foreman(newcomer):
        newcomer.shell(copies)
    for name in ("copy", "smaller-copy"):
        assert newcomer.shell(f"sqlite3 {name}.sqlite3 'SELECT count(*) FROM snappea_task'") == "0\n"


@pytest.mark.needs("initdb")
def test_postgres_as_the_queue(newcomer: Project, postgres: Postgres) -> None:
    """With what waited in the old queue taken along."""
    settings, start, move = of("PostgreSQL as the queue")
    _install, _settings, _tasks, _start, call = of("Set-up in a project")
    dump, load = move.splitlines()
    newcomer.shell(f"{call}{dump}")
    postgres.create("newcomer")
    for key, value in postgres.settings("newcomer").items():
        settings = re.sub(rf'("{key}": )".*"', rf'\1"{value}"', settings)
    newcomer.append("proj/settings.py", f'{settings}DATABASES["snappea"]["PORT"] = {postgres.port}\n')
    newcomer.shell(f"{commands(start)}\n{load}")
    with foreman(newcomer) as running:
        running.wait_for_output("Finished mail.tasks.send_mail #1")
        newcomer.shell(call)
        running.wait_for_output("Finished mail.tasks.send_mail #2")
    postgres.drop("newcomer")


def test_the_main_database(newcomer: Project) -> None:
    settings, migrate = of("The queue in the main database")
    path = newcomer.directory / "proj/settings.py"
    lines = path.read_text().splitlines(keepends=True)
    before = [line for line in lines if not line.startswith(('DATABASES["snappea"]', "DATABASE_ROUTERS"))]
    assert len(lines) - len(before) == 2
    path.write_text("".join(before) + settings)
    newcomer.shell(migrate)
    enqueue = (
        "from django.db import transaction\nfrom mail.tasks import send_mail\n"
        "with transaction.atomic():\n    send_mail.delay(1)\n"
        "with transaction.atomic():\n    send_mail.delay(2)\n    transaction.set_rollback(True)\n"
    )
    with foreman(newcomer) as running:
        newcomer.run("django", "shell", "-c", enqueue)
        newcomer.shell("python manage.py snappea enqueue mail.tasks.send_mail --args '[3]'")
        running.wait_for_output("A mail to user 3")
    assert "A mail to user 1" in running.output() and "A mail to user 2" not in running.output()


@pytest.mark.needs("redis-server")
def test_celery_runs_the_tasks(newcomer: Project, redis: str) -> None:
    """And what still waits is handed over."""
    _pip, settings, app, package, start = of("Celery runs the tasks")
    (hand_over,) = of("Handing over")
    *_, call = of("Set-up in a project")
    check, worker, beat = start.splitlines()
    newcomer.shell(call)
    newcomer.append("proj/settings.py", settings.replace("redis://", redis.removesuffix("0") + "7"))
    newcomer.write("proj/celery.py", app)
    newcomer.write("proj/__init__.py", package)
    newcomer.shell(check)
    flags = "--loglevel INFO"
    with (
        newcomer.running(f"{worker} --pool solo {flags}", " ready.") as running,
        newcomer.running(f"{beat} {flags}", "beat: Starting"),
    ):
        newcomer.shell(call.replace("42", "43"))
        running.wait_for_output("A mail to user 43")
        newcomer.shell(hand_over)
        running.wait_for_output("A mail to user 42")


def mentioned() -> set[str]:
    """Return the command lines that stand in the text and in the tables."""
    text = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"`(?:python )?(?:manage\.py )?((?:runsnappea|snappea|migrate) [a-z-][^`]*)`", text)
    assert len(found) > 10
    return set(found)


@pytest.mark.parametrize("line", sorted(mentioned()))
def test_each_command_that_is_mentioned_is_accepted(line: str) -> None:
    name, *arguments = (word.strip("'\"") for word in line.split())
    parser = load_command_class("snappea", name).create_parser("manage.py", name)
    parser.parse_args(arguments)
