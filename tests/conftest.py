"""Fixtures: a migrated site in a directory of its own, for real processes and for this one."""

import asyncio
import itertools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command
from django.db import connections
from hypothesis import settings as of_hypothesis

from snappea.queue import database as database_module
from tests import settings as project
from tests.celerysite import CelerySite, celery_in_charge
from tests.servers import NOT_TRIED, Postgres, needed, redis_server
from tests.site import ROOT, Made, PostgresSite, Process, Site
from tests.warm import Warm

# the same examples each time, and no time limit for one, which a busy machine would exceed
of_hypothesis.register_profile("steady", derandomize=True, deadline=None, database=None)
of_hypothesis.load_profile("steady")

_numbers = itertools.count()
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each process that a test starts compiles all of Snappea


def pytest_unconfigure() -> None:
    """Remove what the settings made for this process."""
    shutil.rmtree(project.DIR, ignore_errors=True)


def move_databases(directory: Path) -> None:
    """Let this process use the databases of a directory."""
    for alias in connections:
        connections[alias].close()
        connections[alias].settings_dict["NAME"] = str(directory / f"{alias}.sqlite3")


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any) -> Path:
    """Return a directory with both databases, migrated and empty."""
    directory = tmp_path_factory.mktemp("migrated")
    with django_db_blocker.unblock():
        move_databases(directory)
        call_command("migrate", verbosity=0)
        call_command("migrate", using="snappea", verbosity=0)
        connections.close_all()
    return directory


@contextmanager
def queue_on(database: dict[str, Any]) -> Iterator[None]:
    """Let the queue of this process be in another database for a while."""
    before = connections.settings["snappea"]
    try:
        _lead_queue_to(database)
        yield
    finally:
        _lead_queue_to(before)


def _lead_queue_to(database: dict[str, Any]) -> None:
    connections["snappea"].close()
    connections.settings = connections.configure_settings({**connections.settings, "snappea": database})
    del connections["snappea"]
    database_module._thread.connection = None


@pytest.fixture(scope="session")
def postgres(django_db_blocker: Any) -> Iterator[Postgres]:
    """Return a server with a database "migrated", in which our tables are, and nothing else is."""
    server = Postgres()
    server.create("migrated")
    with django_db_blocker.unblock(), queue_on(server.settings("migrated")):
        call_command("migrate", using="snappea", verbosity=0)
    yield server
    server.close()


@pytest.fixture
def site(
    request: pytest.FixtureRequest, migrated: Path, tmp_path: Path, django_db_blocker: Any, settings: Any
) -> Iterator[Site]:
    """Return a site that this process uses as well: `delay()` here writes into its database.

    Where the test is marked with `on_both`, once with SQLite and once with PostgreSQL.
    """
    for database in migrated.glob("*.sqlite3"):
        shutil.copy(database, tmp_path)
    settings.DIR = tmp_path
    with django_db_blocker.unblock():
        move_databases(tmp_path)
        if getattr(request, "param", "sqlite") == "sqlite":
            yield from _used(Site(tmp_path), settings)
        else:
            server = request.getfixturevalue("postgres")
            site = PostgresSite(tmp_path, server, f"test_{next(_numbers)}")
            with queue_on(server.settings(site.name)):
                yield from _used(site, settings)
            server.drop(site.name)


@pytest.fixture(scope="session", autouse=True)
def warm() -> Iterator[None]:
    """Let the processes of sites and projects start sooner."""
    # short, because a socket's path has 107 bytes
    with tempfile.TemporaryDirectory(prefix="snappea-tests-") as programs:
        Process.warm = Warm(ROOT, Path(programs))
        yield
        Process.warm.close()
        Process.warm = None


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Execute each process of a site, where it matters how a process starts, or what its memory holds."""
    monkeypatch.setattr(Process, "warm", None)


def _used(site: Site, settings: Any) -> Iterator[Site]:
    settings.SNAPPEA = dict(site.settings)
    yield site
    site.end()
    connections.close_all()
    asyncio.run(sync_to_async(connections.close_all)())  # those of the thread that adelay() uses


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests on the databases that they are marked for."""
    if "site" in metafunc.fixturenames:
        if metafunc.definition.get_closest_marker("on_sqlite"):
            pass
        elif metafunc.definition.get_closest_marker("on_both"):
            databases: list[Any] = ["sqlite", pytest.param("postgres", marks=pytest.mark.needs("initdb"))]
            metafunc.parametrize("site", databases, indirect=True)
        elif metafunc.definition.get_closest_marker("on_postgres"):
            databases = [pytest.param("postgres", marks=pytest.mark.needs("initdb"))]
            metafunc.parametrize("site", databases, indirect=True)


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a Redis of our own: one, for Celery keeps its connections."""
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="module")
def celery_site(
    redis: str, migrated: Path, tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any
) -> Iterator[CelerySite]:
    """Return a site with a Celery worker. `delay()` in this process sends tasks to it, over Redis."""
    directory = tmp_path_factory.mktemp("celery")
    with django_db_blocker.unblock(), celery_in_charge(migrated, directory, redis) as site:
        site.worker("--concurrency", "2", "--hostname", "first@%h")
        yield site


@pytest.fixture
def made(site: Site) -> Iterator[Made]:
    """Return a decorator that makes a task for this test only."""
    from snappea.tasks.function import (  # needs the apps, which are not ready when this file is read
        registry,
        task,
    )

    before = set(registry)
    yield task(name="tests.made")
    for name in set(registry) - before:
        del registry[name]


@pytest.fixture(params=["inotify", "polling"])
def wakeups(request: pytest.FixtureRequest, site: Site) -> str:
    """Run a test twice: with inotify, and without."""
    site.settings["USE_INOTIFY"] = request.param == "inotify"
    return str(request.param)


def pytest_configure(config: pytest.Config) -> None:
    """Declare our marker."""
    config.addinivalue_line("markers", "long: takes so long that CI runs it on one Python only")
    config.addinivalue_line("markers", "on_both: run with SQLite, and with PostgreSQL")
    config.addinivalue_line("markers", "on_sqlite: run with SQLite only, for it is about that")
    config.addinivalue_line("markers", "on_postgres: run with PostgreSQL")
    config.addinivalue_line("markers", "needs(program): skip, and say so loudly, where a program is missing")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot be tried here; with CI set there is no excuse."""
    for marker in item.iter_markers("needs"):
        needed(marker.args[0])


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say loudly what was not tried, for want of a program."""
    reasons = Counter(str(report.longrepr[-1]) for report in terminalreporter.stats.get("skipped", ()))
    missed = {reason: count for reason, count in reasons.items() if NOT_TRIED in reason}
    if missed:
        terminalreporter.section("NOT ALL WAS TRIED", sep="!", red=True, bold=True)
    for reason, count in missed.items():
        terminalreporter.line(f"{count} tests: {reason.removeprefix('Skipped: ')}", red=True, bold=True)
