"""The schedules in the admin: the list, permissions, and pause, resume and fire."""

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from snappea.models import Schedule, Task
from snappea.queue.clock import now
from snappea.queue.database import connect
from snappea.schedules.rows import synchronise
from tests.playground.tasks import record
from tests.site import Site
from tests.web import user

LIST = "/admin/snappea/schedule/"


@pytest.fixture
def client(site: Site, settings: Any) -> Client:
    """Return a superuser's client, with two schedules, one of which has a hostile name."""
    entry = {"task": record.name, "every": 3600, "args": ["tick"]}
    hostile = {"task": record.name, "cron": "30 2 * * *", "args": [1], "name": "<script>x()"}
    settings.SNAPPEA = {**site.settings, "SCHEDULES": [entry, hostile]}
    synchronise(connect().connection, now())
    return as_user(is_superuser=True)


def as_user(*permissions: str, **kinds: Any) -> Client:
    client = Client()
    client.force_login(user(f"user{len(permissions)}{len(kinds)}", *permissions, **kinds))
    return client


def act(client: Client, action: str, *names: str) -> Any:
    ids = [str(Schedule.objects.get(name=name).pk) for name in names]
    return client.post(LIST, {"action": action, "_selected_action": ids}, follow=True)


def test_the_list(client: Client) -> None:
    page = client.get(LIST).content.decode()
    assert record.name in page and "every 3600 s" in page and "30 2 * * * (UTC)" in page
    assert "&lt;script&gt;x()" in page and "<script>x()" not in page
    assert re.search(r">in \d+ (min|h)", page)


def test_pause_and_resume(client: Client) -> None:
    page = act(client, "pause", record.name).content.decode()
    import re

    print(re.findall(r"messagelist.*?</ul>", page, re.S), re.findall(r"errornote.*", page))
    assert f"Paused: {record.name}." in page
    assert Schedule.objects.get(name=record.name).is_paused
    act(client, "resume", record.name)
    assert not Schedule.objects.filter(is_paused=True).exists()
    entries = [(entry.change_message, entry.object_repr) for entry in LogEntry.objects.order_by("pk")]
    assert entries == [(word, f"the schedule {record.name}") for word in ("Paused", "Resumed")]


def test_fire_now(client: Client) -> None:
    assert "Fired: " in act(client, "fire", record.name, "<script>x()").content.decode()
    assert sorted(Task.objects.values_list("args", flat=True)) == ['["tick"]', "[1]"]
    assert "ready" in client.get(LIST).content.decode()


def test_one_that_cannot_be_fired(client: Client) -> None:
    Schedule.objects.filter(name=record.name).update(args="[1, 2, 3]")
    page = act(client, "fire", record.name).content.decode()
    assert "Not fired: " in page and "too many positional arguments" in page
    assert not LogEntry.objects.exists()


def test_no_user_edits_adds_or_deletes(client: Client) -> None:
    pk = Schedule.objects.all()[0].pk
    for path in ("add/", f"{pk}/change/", f"{pk}/delete/"):
        assert client.get(f"{LIST}{path}").status_code == 404
    assert "delete_selected" not in client.get(LIST).content.decode()


@pytest.mark.parametrize("action", ["pause", "resume", "fire"])
def test_who_may_only_look(client: Client, action: str) -> None:
    viewer = as_user("view")
    page = viewer.get(LIST).content.decode()
    assert record.name in page and 'value="pause"' not in page
    act(viewer, action, record.name)
    assert not Schedule.objects.filter(is_paused=True).exists() and not Task.objects.exists()


def test_who_may_not_even_look(client: Client) -> None:
    assert as_user().get(LIST).status_code == 403
    assert Client().get(LIST).status_code == 302
