"""Migrating from another queue: runs each sample in tests/newcomers, before and after.

What it was is run where its packages are installed (the original Snappea cannot be beside ours).
"""

import ast
import os
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs.manual import TEXT
from tests.projects import Project
from tests.servers import NOT_TRIED
from tests.site import ROOT, wait_until

pytestmark = pytest.mark.long

SAMPLES = ROOT / "tests" / "newcomers"
SETTINGS = """
from pathlib import Path

BASE_DIR = Path(__file__).parent
SECRET_KEY = "only for tests"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "shop"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "default.sqlite3",
        "OPTIONS": {"timeout": 60, "transaction_mode": "IMMEDIATE"},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""
SNAPPEA = """
INSTALLED_APPS += ["snappea"]
DATABASES["snappea"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "snappea.sqlite3"}
DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]
"""
CELERY = """
import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
"""


@dataclass(frozen=True)
class System:
    """The other queue: its `settings` and `commands`, and what they become (`here`)."""

    name: str
    package: str
    settings: str
    commands: list[str]
    here: str = ""
    ran: dict[str, int] = field(default_factory=dict)
    #: What comes by itself, where it comes within seconds.
    by_itself: set[str] = field(default_factory=set)


ALL = {"welcome ada": 1, "welcome later": 1, "welcome committed": 1, "fetch prices": 2}
WITH_RESULT = {**ALL, "total 6": 1}
SYSTEMS = [
    System(
        "celery",
        "celery",
        """
CELERY_BROKER_URL = CELERY_RESULT_BACKEND = "{redis}"
CELERY_BEAT_SCHEDULE = {{"tidy": {{"task": "shop.tasks.tidy", "schedule": 1.0}}}}
CELERY_WORKER_CONCURRENCY = 2
""",
        ["celery -A shop worker --beat"],
        """
SNAPPEA = {"NUM_WORKERS": 2, "SCHEDULES": [{"task": "shop.tasks.tidy", "every": 1, "name": "tidy"}]}
""",
        {**WITH_RESULT, "retry 1": 1, "sync stock": 2},
        {"tidy"},
    ),
    System(
        "rq",
        "django_rq",
        """
INSTALLED_APPS += ["django_rq"]
RQ_QUEUES = {{"default": {{"URL": "{redis}"}}}}
""",
        ["python -m django rqworker default --with-scheduler", "python -m django rqcron shop.tasks"],
        'SNAPPEA = {"QUEUES": {}}\n',
        {**WITH_RESULT, "retry 1": 1, "retry 2": 1, "sync stock": 1},
        {"tidy"},
    ),
    System(
        "huey",
        "huey",
        """
INSTALLED_APPS += ["huey.contrib.djhuey"]
HUEY = {{
    "huey_class": "huey.SqliteHuey",
    "filename": BASE_DIR / "huey.sqlite3",
    "immediate": False,
    "consumer": {{"workers": 2}},
}}
""",
        ["python -m django run_huey"],
        'SNAPPEA = {"NUM_WORKERS": 2}\n',
        {**WITH_RESULT, "retry 1": 1, "sync stock": 2},
    ),
    System(
        "django_q2",
        "django_q",
        """
INSTALLED_APPS += ["django_q"]
Q_CLUSTER = {{"orm": "default", "workers": 2, "timeout": 10, "retry": 15, "recycle": 500, "save_limit": 250}}
""",
        ["python -m django qcluster"],
        'SNAPPEA = {"NUM_WORKERS": 2, "MAX_TASKS": 500, "SOFT_TIME_LIMIT": 10}\n',
        {**WITH_RESULT, "hook False": 1, "hook True": 1},
    ),
    System(
        "django_taskq",
        "django_taskq",
        'INSTALLED_APPS += ["django_taskq"]\n',
        ["python -m django taskq -Q default", "python -m django taskq"],
        "",
        {**ALL, "sync stock": 2},
    ),
    System(
        "bugsink",
        "",
        "",
        [],
        'SNAPPEA = {"NUM_WORKERS": 2, "GRACEFUL_TIMEOUT": 10, "STATS_RETENTION_MINUTES": 60 * 24 * 7}\n',
        {"welcome ada": 1, "crash": 1, "welcome committed": 1},
    ),
]
EACH = pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)


def project_of(system: System, version: str, directory: Path, settings: str) -> Project:
    """Return a project with one version of a sample as its shop/tasks.py."""
    files = {
        "settings.py": SETTINGS + settings,
        "shop/__init__.py": "",
        "shop/ledger.py": (SAMPLES / "ledger.py").read_text(),
        "shop/tasks.py": (SAMPLES / system.name / f"{version}.py").read_text(),
    }
    project = Project(directory, files)
    project.variables["LEDGER"] = str(directory / "ledger")
    return project


def database_of(redis: str, system: System) -> str:
    """Return a database of Redis that no other system uses."""
    return f"{redis.removesuffix('0')}{10 + SYSTEMS.index(system)}"


def ledger(project: Project) -> list[tuple[float, str]]:
    path = project.directory / "ledger"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(float(time), text) for time, text in (line.split(" ", 1) for line in lines)]


def found(project: Project) -> "Counter[str]":
    return Counter(text for _time, text in ledger(project) if text != "called")


def wait_for(project: Project, ran: dict[str, int], by_itself: set[str]) -> None:
    """Wait until all of it has run."""
    wait_until(lambda: found(project) >= Counter(ran) and found(project).keys() >= by_itself, str(ran))


@EACH
def test_as_it_is_here(system: System, tmp_path: Path) -> None:
    project = project_of(system, "after", tmp_path, SNAPPEA + system.here)
    project.shell("python -m django check\npython -m django migrate --using=snappea")
    with project.running("python -m django runsnappea", "tasks ready") as foreman:
        project.run("django", "shell", "-c", "from shop.tasks import call_all\ncall_all()")
        by_itself = public(SAMPLES / system.name / "after.py") & {"tidy"}
        if by_itself - system.by_itself:  # it would take a minute
            project.run("django", "snappea", "schedules", "--fire", "shop.tasks.tidy")
        wait_for(project, system.ran, by_itself)
    assert foreman.popen.returncode == 0
    assert {text: count for text, count in found(project).items() if text != "tidy"} == system.ran
    times = {text: time for time, text in ledger(project)}
    assert times.get("welcome later", float("inf")) > times["called"] + 1, "it was early"
    failed = project.run("django", "snappea", "list", "failed")
    assert ("shop.tasks.crash" in failed) == (system.name == "bugsink"), failed


@EACH
@pytest.mark.needs("redis-server")
def test_as_it_was(system: System, tmp_path: Path, redis: str) -> None:
    if not system.package:
        pytest.skip("it bears our name, so that both cannot be installed")
    if find_spec(system.package) is None:
        assert "CI" not in os.environ, system.package
        pytest.skip(f"{NOT_TRIED}: {system.package} is not installed")
    project = project_of(system, "before", tmp_path, system.settings.format(redis=database_of(redis, system)))
    if system.name == "celery":
        project.write("shop/__init__.py", "from .celery import app as celery_app\n")
        project.write("shop/celery.py", CELERY)
    project.run("django", "migrate", "-v0")
    with ExitStack() as processes:
        for command in system.commands:
            processes.enter_context(project.running(command))
        project.run("django", "shell", "-c", "from shop.tasks import call_all\ncall_all()")
        wait_for(project, system.ran, system.by_itself)


def public(path: Path) -> set[str]:
    """Return the names of a module's functions."""
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


@EACH
def test_both_do_the_same(system: System) -> None:
    before, after = (public(SAMPLES / system.name / f"{version}.py") for version in ("before", "after"))
    assert before - {"welcome_on_commit"} == after


def test_the_manual_shows_each_of_them() -> None:
    for system in SYSTEMS:
        assert f"tests/newcomers/{system.name}" in TEXT
