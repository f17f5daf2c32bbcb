"""Migrations and queries: our tables are in our database, and no others."""

import subprocess
import sys
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db import connections, router

from snappea.checks import check_database
from snappea.models import Task
from tests.site import Site


def tables(alias: str) -> set[str]:
    with connections[alias].cursor() as cursor:
        return set(connections[alias].introspection.table_names(cursor))


@pytest.mark.parametrize("option", ["--using", "--database"])
def test_migrating_the_queues_database(site: Site, option: str) -> None:
    connections.close_all()
    for database in site.directory.glob("*.sqlite3"):
        database.unlink()
    for arguments in (["migrate"], ["migrate", f"{option}=snappea"], ["migrate", option, "snappea"]):
        done = site.manage(*arguments)
        assert done.wait() == 0, done.output()
    ours = {model._meta.db_table for model in apps.get_app_config("snappea").get_models()}
    assert tables("snappea") == {"django_migrations", *ours} and "snappea_task" in ours
    assert not ours & tables("default") and "auth_user" in tables("default")


def test_migrate_refuses_an_unknown_alias(site: Site) -> None:
    done = site.manage("migrate", "--using=nonsense")
    assert done.wait() == 2
    assert "invalid choice: 'nonsense'" in done.output()


def test_migrate_without_either_is_djangos_own(site: Site) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "django", "migrate", "--plan"],
        env=site.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "No planned migration operations" in done.stdout


def test_queries_go_where_the_tables_are(site: Site, settings: Any) -> None:
    assert router.db_for_read(Task) == router.db_for_write(Task) == "snappea"
    assert router.db_for_write(User) == "default"
    settings.SNAPPEA = {"DATABASE": "default"}
    assert router.db_for_write(Task) == "default"


class Replica:
    """Sends reads to another database, as in Django's manual."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "default"

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return None


class Everywhere(Replica):
    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "snappea"

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return True


class NoTasks(Everywhere):
    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return hints.get("model_name") != "task"


OURS = "snappea.router.SnappeaRouter"


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (
            "Replica",
            "tests.test_router.Replica reads snappea_",
        ),
        ("Everywhere", "tests.test_router.Everywhere lets other tables into the database 'snappea'"),
        ("NoTasks", "tests.test_router.NoTasks keeps snappea_task out of the database 'snappea'"),
    ],
)
def test_a_router_that_answers_before_ours(site: Site, settings: Any, before: str, words: str) -> None:
    other = f"tests.test_router.{before}"
    settings.DATABASE_ROUTERS = [other, OURS]
    (found,) = check_database()
    assert found.id == "snappea.E004" and words in found.msg, found
    assert found.hint and found.hint.endswith(f'DATABASE_ROUTERS = ["{OURS}", "{other}"]')
    settings.DATABASE_ROUTERS = [OURS, other]
    assert check_database() == []


def test_a_router_that_is_an_object(site: Site, settings: Any) -> None:
    settings.DATABASE_ROUTERS = [Replica()]
    (found,) = check_database()
    assert found.hint and f'["{OURS}", *DATABASE_ROUTERS]' in found.hint


def test_without_a_router(site: Site, settings: Any) -> None:
    settings.DATABASE_ROUTERS = []
    (found,) = check_database()
    assert "Django, without a router, reads snappea_task in the database 'default'" in found.msg
