"""Fixtures: a migrated site in a directory of its own, for real processes and for this one."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command
from django.db import connections

from tests.site import Made, Site


def _move_databases(directory: Path) -> None:
    for alias in connections:
        connections[alias].close()
        connections[alias].settings_dict["NAME"] = str(directory / f"{alias}.sqlite3")


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any) -> Path:
    """Return a directory with both databases, migrated and empty."""
    directory = tmp_path_factory.mktemp("migrated")
    with django_db_blocker.unblock():
        _move_databases(directory)
        call_command("migrate", verbosity=0)
        call_command("migrate", using="snappea", verbosity=0)
        connections.close_all()
    return directory


@pytest.fixture
def site(migrated: Path, tmp_path: Path, django_db_blocker: Any, settings: Any) -> Iterator[Site]:
    """Return a site that this process uses as well: `delay()` here writes into its database."""
    for database in migrated.glob("*.sqlite3"):
        shutil.copy(database, tmp_path)
    site = Site(tmp_path)
    settings.SNAPPEA = dict(site.settings)
    settings.DIR = tmp_path
    with django_db_blocker.unblock():
        _move_databases(tmp_path)
        yield site
        site.end()
        connections.close_all()
        asyncio.run(sync_to_async(connections.close_all)())  # those of the thread that adelay() uses


@pytest.fixture
def made(site: Site) -> Iterator[Made]:
    """Return a decorator that makes a task for this test only."""
    from snappea.tasks import registry, task  # needs the apps, which are not ready when this file is read

    before = set(registry)
    yield task(name="tests.made")
    for name in set(registry) - before:
        del registry[name]


@pytest.fixture(params=["inotify", "polling"])
def wakeups(request: pytest.FixtureRequest, site: Site) -> str:
    """Run a test twice: with inotify, and without."""
    site.settings["USE_INOTIFY"] = request.param == "inotify"
    return str(request.param)


#: In which package a program is, if it is called otherwise.
PACKAGES = {"chromedriver": "chromium-driver", "chattr": "e2fsprogs"}


def pytest_configure(config: pytest.Config) -> None:
    """Declare our marker."""
    config.addinivalue_line("markers", "long: takes so long that CI runs it on one Python only")
    config.addinivalue_line("markers", "needs(program): skip, and say so loudly, where a program is missing")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot be tried here; with CI set there is no excuse."""
    for marker in item.iter_markers("needs"):
        program = marker.args[0]
        if shutil.which(program) is None:
            if os.environ.get("CI"):
                pytest.fail(f"{program} is not installed, and CI must not skip this")
            pytest.skip(
                f"NOT TRIED: {program} is not installed (apt-get install {PACKAGES.get(program, program)})"
            )
