"""SNAPPEA = {"DATABASE": "default"}: the queue is in the main database, and delay() in the transaction."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.core.management.commands import migrate
from django.db import connections, transaction

from snappea.checks import check_database
from snappea.django_tasks.framework import TaskResultDoesNotExist
from snappea.models import Status, Task
from snappea.queue.availability import trouble
from tests.playground import djangotasks
from tests.playground.tasks import nothing, record
from tests.site import Site, wait_until


@pytest.fixture(autouse=True, params=[False, True], ids=["ours", "theirs"])
def in_main_database(request: pytest.FixtureRequest, site: Site, settings: Any) -> Iterator[None]:
    """Move the queue's tables to the main database."""
    site.settings["DATABASE"] = "default"
    settings.SNAPPEA = dict(site.settings)
    settings.DATABASE_ROUTERS = []
    site.database = site.directory / "default.sqlite3"
    connections["default"].close()
    connections["snappea"].close()
    (site.directory / "snappea.sqlite3").unlink()
    assert str(trouble()).endswith(  # the queue had its own database before
        "has none of Snappea's tables, though its migrations are recorded as applied. "
        "Run: python manage.py migrate --database=default"
    )
    if request.param:  # as `migrate` of another app does
        call_command("migrate", "snappea", "zero", fake=True, database="default", verbosity=0)
        migrate.Command().run_from_argv(["manage.py", "migrate", "--database=default", "-v0"])
    else:
        call_command("migrate", verbosity=0)
    yield
    connections["default"].close()


def test_there_is_nothing_to_say_against_it(site: Site) -> None:
    assert check_database() == []


def test_with_the_router_the_tables_of_others_stay_where_they_are(site: Site, settings: Any) -> None:
    settings.DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]
    assert check_database() == []
    call_command("migrate", verbosity=0)
    assert ContentType.objects.db == "default" == Task.objects.db


def test_it_is_enqueued_if_and_only_if_the_transaction_commits(
    site: Site, settings: Any, caplog: Any
) -> None:
    settings.DEBUG = True
    site.foreman()
    with transaction.atomic():
        ContentType.objects.create(app_label="kept", model="kept")
        kept = record.delay("kept")
        assert kept.status == Status.READY
    with pytest.raises(KeyError), transaction.atomic():
        ContentType.objects.create(app_label="gone", model="gone")
        record.delay("gone")
        raise KeyError
    wait_until(lambda: site.ledger.count("end", "kept"))
    site.wait_until_empty()
    assert not site.ledger.count("start", "gone") and not Task.objects.exists()
    assert list(ContentType.objects.filter(app_label__in=["kept", "gone"]).values_list("model")) == [
        ("kept",)
    ]
    assert "open transaction" not in caplog.text


def test_a_savepoint_that_is_rolled_back_takes_its_tasks_along(site: Site) -> None:
    with transaction.atomic():
        nothing.delay()
        with pytest.raises(KeyError), transaction.atomic():
            nothing.delay_many([(), ()])
            raise KeyError
    assert Task.objects.count() == 1


def test_the_main_databases_own_ways_are_left_alone(site: Site) -> None:
    connection = connections["default"]
    nothing.delay()
    assert connection.transaction_mode is None  # type: ignore[attr-defined]
    with connection.cursor() as cursor:
        assert cursor.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_uuid_is_not_given_again_after_a_rollback(site: Site, settings: Any) -> None:
    settings.TASKS = {"default": {"BACKEND": "snappea.backend.SnappeaBackend", "OPTIONS": {"UUIDS": True}}}
    with transaction.atomic():
        lost = djangotasks.add.enqueue(1).id
        transaction.set_rollback(True)
    found = djangotasks.add.enqueue(2).id
    assert found != lost and found[-12:] == lost[-12:], "the row's number is the same"
    assert djangotasks.add.get_result(found).args == [2]
    with pytest.raises(TaskResultDoesNotExist):
        djangotasks.add.get_result(lost)


def test_a_task_of_django_has_its_id_within_the_transaction(site: Site, settings: Any) -> None:
    settings.TASKS = {"default": {"BACKEND": "snappea.backend.SnappeaBackend", "ENQUEUE_ON_COMMIT": True}}
    with transaction.atomic():
        assert djangotasks.add.enqueue(1).id == str(Task.objects.get().pk)
        transaction.set_rollback(True)
    assert site.counts() == {}
