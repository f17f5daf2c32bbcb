"""A site with Celery as the engine: Redis, a real worker, and this process as the one that calls."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from django.db import connections
from django.test import override_settings

from tests.site import Process, Site

PROJECT = "tests.proj"
QUICKLY = ["--without-mingle", "--without-gossip", "--without-heartbeat", "--loglevel", "INFO"]


class CelerySite(Site):
    """A site with Celery as the engine. `app`: this process's Celery app."""

    app: Any
    tasks: ModuleType

    def __init__(self, directory: Path, url: str) -> None:
        super().__init__(directory)
        self.url = url
        self.settings |= {
            "HOOK_ADD_TASK_KWARGS": "tests.proj.tasks.add_kwargs",
            "HOOK_RUN_TASK_CONTEXT": "tests.proj.tasks.run_context",
        }
        self.variables |= {
            "DJANGO_SETTINGS_MODULE": "tests.proj.settings",
            "SNAPPEA_TEST_BROKER": url,
            "SNAPPEA_TEST_RESULTS": url,
            "SNAPPEA_TEST_ADMIN": "1",  # its actions on many tasks are a task
        }

    def worker(self, *flags: str) -> Process:
        """Start one of Celery's workers, and wait until it is at work."""
        process = self.celery("worker", *QUICKLY, *flags)
        process.wait_for_output(r"celery@\S+ ready\.|@\S+ ready\.")
        return process

    def celery(self, *arguments: str) -> Process:
        """Start a program of Celery's."""
        return Process(self, ["-m", "celery", "-A", PROJECT, *arguments], [])


@contextmanager
def celery_in_charge(migrated: Path, directory: Path, url: str) -> Iterator[CelerySite]:
    """Let this process call by Celery, in a site of its own, until the block ends."""
    from snappea.celery.engine import activate
    from snappea.tasks import function as registry
    from tests.conftest import move_databases

    site = CelerySite(directory, url)
    for database in migrated.glob("*.sqlite3"):
        shutil.copy(database, directory)
    move_databases(directory)
    site.app = import_module("tests.proj.celery").app
    site.app.conf.update(broker_url=url, result_backend=url, result_expires=600)
    for name in ("celery", "mail"):  # what another module has left
        with site.app.connection_for_write() as connection:
            connection.SimpleQueue(name).clear()
    site.tasks = import_module("tests.proj.tasks")
    with override_settings(SNAPPEA={**site.settings, "ENGINE": "celery"}, DIR=directory):
        ours = [made for made in vars(site.tasks).values() if isinstance(made, registry.TaskFunction)]
        for made in ours:
            registry.register(made)
        activate()
        try:
            yield site
        finally:
            registry.observers.clear()
            for made in ours:
                for name in (made.name, *made.options.aliases):
                    del registry.registry[name]
            site.end()
            connections.close_all()
