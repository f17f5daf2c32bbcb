"""The schedules in the console: the list, a schedule's page, its form, permissions, and what the log says."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from snappea import schedules
from snappea.models import Schedule, ScheduleRun, Task
from snappea.queue.clock import now
from snappea.queue.database import connect
from snappea.schedules.rows import synchronise
from tests.playground.sensitive import fail_with_it
from tests.playground.tasks import echo, record
from tests.site import Site
from tests.web import user

LIST = "/admin/snappea/schedule/"
HOSTILE = "<script>x()"


@pytest.fixture
def client(site: Site, settings: Any) -> Client:
    """Return a superuser's client, with two schedules, one of which has a hostile name."""
    entry = {"task": record.name, "every": 3600, "args": ["tick"]}
    hostile = {"task": record.name, "cron": "30 2 * * *", "args": [1], "name": HOSTILE}
    settings.SNAPPEA = {**site.settings, "SCHEDULES": [entry, hostile]}
    synchronise(connect().connection, now())
    return as_user(is_superuser=True)


def as_user(*permissions: str, **kinds: Any) -> Client:
    client = Client()
    client.force_login(user(f"user{len(permissions)}{len(kinds)}", *permissions, **kinds))
    return client


def row(name: str = record.name) -> Schedule:
    return Schedule.objects.get(name=name)


def act(client: Client, verb: str, name: str = record.name, **data: str) -> Any:
    return client.post(f"{LIST}{row(name).pk}/{verb}/", data, follow=True)


def page_of(name: str = record.name) -> str:
    return f"{LIST}{row(name).pk}/change/"


def text(response: Any) -> str:
    found: str = response.content.decode()
    return found


def entries() -> list[str]:
    """Return what the admin's log says, in order."""
    return list(LogEntry.objects.order_by("pk").values_list("change_message", flat=True))


EDITED = {"expression": "0 3 * * *", "timezone": "UTC", "args.key": '"tick"', "catch_up": "on", "queue": ""}


# the list


def test_the_list(client: Client) -> None:
    page = text(client.get(LIST))
    assert record.name in page and "Every 1 h" in page
    assert "At 02:30 every day" in page and "30 2 * * *" in page and "UTC" in page
    assert "&lt;script&gt;x()" in page and HOSTILE not in page
    assert re.search(r">in \d+ (min|h)", page)


def test_marks_and_problems(client: Client) -> None:
    schedules.change(record.name, every=60)
    schedules.pause(record.name)
    schedules.add("mine", echo, every=60)
    Schedule.objects.filter(name="mine").update(task_name="shop.gone")
    page = text(client.get(LIST))
    assert "changed by a user" in page and "added by a user" in page and ">paused<" in page
    assert "Unknown task &#x27;shop.gone&#x27;" in page


def test_one_that_no_foreman_knows_yet(client: Client, settings: Any) -> None:
    new = {"task": record.name, "every": 5, "args": [1], "name": "new"}
    settings.SNAPPEA = {**settings.SNAPPEA, "SCHEDULES": [new]}
    page = text(client.get(LIST))
    assert "not known to a Foreman yet" in page and "no longer in the code" in page


def test_the_last_runs_are_links(client: Client) -> None:
    first, second = (schedules.fire(record.name).id for _ in range(2))
    Task.objects.filter(pk=first).update(status="failed", finished_at=timezone.now())
    Task.objects.filter(pk=second).delete()
    ScheduleRun.objects.create(schedule=record.name, at=timezone.now(), outcome="not enqueued: <b>")
    page = text(client.get(LIST))
    bars = re.findall(r'class="sp-run sp-run-(\w+)"[^>]* href="([^"]*)" title="[^"]*?\d: ([^"]*)"', page)
    assert [(kind, label) for kind, _href, label in bars] == [
        ("failed", "Failed"),
        ("successful", "Finished"),
        ("failed", "not enqueued: &lt;b&gt;"),
    ]
    assert bars[1][1].endswith(f"?q=task%3A{record.name}")


def test_with_many_schedules(client: Client, settings: Any) -> None:
    """The number of queries does not depend on the number of schedules."""
    entry: dict[str, Any] = {"task": record.name, "cron": "*/5 * * * *", "args": [1]}
    many = [{**entry, "name": f"number {number}"} for number in range(60)]
    settings.SNAPPEA = {**settings.SNAPPEA, "SCHEDULES": many}
    synchronise(connect().connection, now())
    runs = [
        ScheduleRun(schedule=one["name"], at=timezone.now() - timedelta(minutes=back), task_id=back)
        for one in many
        for back in range(30)
    ]
    ScheduleRun.objects.bulk_create(runs)
    with (
        CaptureQueriesContext(connections["snappea"]) as queue,
        CaptureQueriesContext(connections["default"]) as own,
    ):
        page = text(client.get(LIST))
    assert page.count("sp-run-successful") == 60 * 29 and "number 59" in page
    assert len(queue) + len(own) <= 12


# actions


def test_pause_and_resume(client: Client) -> None:
    assert f"Paused: {record.name}." in text(act(client, "pause"))
    assert row().is_paused
    act(client, "resume")
    assert not Schedule.objects.filter(is_paused=True).exists()
    assert entries() == ["Paused", "Resumed"]
    assert set(LogEntry.objects.values_list("object_repr", "object_id")) == {(record.name, str(row().pk))}


def test_fire_now(client: Client) -> None:
    for name in (record.name, HOSTILE):
        assert "Fired: " in text(act(client, "fire", name))
    assert sorted(Task.objects.values_list("args", flat=True)) == ['["tick"]', "[1]"]


def test_one_that_cannot_be_fired(client: Client) -> None:
    Schedule.objects.filter(name=record.name).update(args="[1, 2, 3]")
    assert "too many positional arguments" in text(act(client, "fire"))
    assert not LogEntry.objects.exists()


def test_reset_and_remove(client: Client) -> None:
    schedules.change(record.name, every=60, queue="slow")
    schedules.add("mine", echo, every=60, args=[1])
    assert "Reset to the code" in text(client.get(page_of()))
    page = text(act(client, "reset", page="1"))
    assert "Reset: " in page and "Reset to the code" not in page, "it stays on the schedule's page"
    assert "Remove" in text(client.get(page_of("mine")))
    act(client, "remove", "mine", page="1")
    assert not Schedule.objects.filter(name="mine").exists()
    reset, removed = entries()
    assert reset == "Reset: Times: every 60 s → every 3600 s, Queue: slow → the task's own"
    assert removed.startswith("Removed: Times: every 60 s") and "Arguments: *args=[1]" in removed


def test_what_does_not_exist(client: Client) -> None:
    pk = row().pk
    assert client.get(f"{LIST}{pk}/pause/").status_code == 404
    assert client.post(f"{LIST}{pk}/explode/").status_code == 404
    assert client.post(f"{LIST}999/pause/").status_code == 404
    assert client.get(f"{LIST}999/change/").status_code == 404
    assert client.get(f"{LIST}{pk}/delete/").status_code == 404


# a schedule's page, and the forms


def test_edit(client: Client) -> None:
    page = text(client.get(page_of()))
    assert 'value="every 3600 s"' in page and "&quot;tick&quot;" in page and 'name="name"' not in page
    page = text(client.post(page_of(), {**EDITED, "args.key": "5", "queue": "slow"}, follow=True))
    changed = row()
    assert (changed.expression, changed.args, changed.queue) == ("0 3 * * *", "[5]", "slow")
    assert "in the code:" in page and "every 3600 s" in page and "changed by a user" in page
    (said,) = entries()
    assert said.startswith('Changed: Times: every 3600 s → 0 3 * * *, Arguments: key="tick" → key=5, ')
    assert said.endswith("Queue: the task's own → slow")
    assert "every 3600 s → 0 3 * * *" in page, "the history"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("expression", "0 25 * * *", "the hour &#x27;25&#x27; is wrong"),
        ("expression", "every now and then", "is not an interval"),
        ("timezone", "Mars", "there is no such time zone"),
        ("args.key", "{", "Enter JSON"),
        ("args.key", "", "This field is required"),
        ("queue", "unheard", "unheard"),
    ],
)
def test_errors_are_shown_and_the_values_stay(
    client: Client, settings: Any, field: str, value: str, words: str
) -> None:
    settings.SNAPPEA = {**settings.SNAPPEA, "QUEUES": {"slow": {}}}
    before = Schedule.objects.values().get(name=record.name)
    page = text(client.post(page_of(), {**EDITED, field: value}))
    assert any(words in found for found in re.findall(r'class="errorlist.*?</ul>', page, re.DOTALL))
    if field != "expression":
        assert 'value="0 3 * * *"' in page
    assert Schedule.objects.values().get(name=record.name) == before and not entries()


def test_add(client: Client) -> None:
    page = text(client.get(f"{LIST}add/"))
    assert f"?task={echo.name}" in page and record.name not in page, "only tasks that allow it"
    address = f"{LIST}add/?task={echo.name}"
    new = {
        "name": "mine",
        "expression": "every 60 s",
        "timezone": "UTC",
        "args.args": "[1, 2]",
        "args.kwargs": '{"a": 3}',
    }
    page = text(client.post(address, new, follow=True))
    added = row("mine")
    assert (added.args, added.kwargs, added.is_added, added.catch_up) == ("[1,2]", '{"a":3}', True, False)
    assert entries() == [
        "Added: Times: every 60 s, Time zone: UTC, Arguments: *args=[1, 2], a=3, "
        "Queue: the task's own, Catch up: no"
    ]
    assert "added by a user" in page
    assert "There already is a schedule" in text(client.post(address, new))
    assert "Which task?" in text(client.get(f"{LIST}add/?task={record.name}"))


def test_sensitive_arguments_are_not_shown(client: Client, settings: Any) -> None:
    entry = {"task": fail_with_it.name, "every": 3600, "args": ["hunter2"], "name": "secret"}
    entry["kwargs"] = {"key": "hunter3"}
    settings.SNAPPEA = {**settings.SNAPPEA, "SCHEDULES": [entry]}
    synchronise(connect().connection, now())
    page = text(client.get(page_of("secret")))
    assert "hunter" not in page and "hidden" in page and 'name="args.' not in page
    client.post(page_of("secret"), {"expression": "every 60 s", "timezone": "UTC"})
    assert row("secret").args == '["hunter2"]' and row("secret").expression == "every 60 s"
    assert "hunter" not in str(entries())
    Schedule.objects.filter(name="secret").update(task_name="shop.renamed")
    assert "hunter2" not in text(client.get(page_of("secret"))), "who knows whether it is"


# permissions


@pytest.mark.parametrize("verb", ["pause", "resume", "fire", "reset", "remove"])
def test_who_may_only_look(client: Client, verb: str) -> None:
    viewer = as_user("view")
    assert record.name in text(viewer.get(LIST)) and "Fire now" not in text(viewer.get(LIST))
    page = text(viewer.get(page_of()))
    assert "Every 1 h" in page and "Fire now" not in page and 'name="expression"' not in page
    assert act(viewer, verb).status_code == 403
    assert viewer.post(page_of(), EDITED).status_code == 403
    assert viewer.get(f"{LIST}add/").status_code == 403
    assert not Schedule.objects.filter(is_paused=True).exists() and not Task.objects.exists()
    assert row().expression == "every 3600 s"


def test_who_may_not_even_look(client: Client) -> None:
    stranger = as_user()
    for address in (LIST, page_of(), f"{LIST}add/"):
        assert stranger.get(address).status_code == 403
        assert Client().get(address).status_code == 302


def test_who_may_change_but_is_no_superuser(client: Client) -> None:
    changer = as_user("change")
    act(changer, "pause")
    assert row().is_paused and "Fire now" in text(changer.get(LIST))


def test_a_task_names_the_schedule_that_enqueued_it(client: Client) -> None:
    task_id = schedules.fire(record.name).id
    page = text(client.get(f"/admin/snappea/task/{task_id}/change/"))
    assert f'href="{page_of()}"' in page
    echo.delay(1)
    assert page_of() not in text(client.get(f"/admin/snappea/task/{Task.objects.latest('pk').pk}/change/"))
