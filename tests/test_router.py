"""Migrations and queries: our table in our database, and nothing of others in it."""

import subprocess
import sys
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db import connections, router

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
