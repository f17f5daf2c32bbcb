"""The page of a task, and the form that enqueues a call."""

import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client

from snappea import task
from snappea.admin.actions import note
from snappea.models import Schedule, Status, Task
from snappea.tasks.function import registry
from tests.admin.test_lists import HOSTILE, client, put
from tests.monitoring.test_tracebacks import FRAMES
from tests.playground.tasks import echo, record, wait_for
from tests.site import Site, wait_until
from tests.web import user

PAGES = "/admin/snappea/task/"


def boss() -> Client:
    """Return a browser in which the superuser is logged in."""
    browser = Client()
    browser.force_login(User.objects.filter(username="boss").first() or user(is_superuser=True))
    return browser


def page_of(row: Task, **query: str) -> str:
    return boss().get(f"{PAGES}{row.pk}/change/", query).content.decode()


def text_of(row: Task) -> str:
    """Return the words of a task's page, without markup."""
    words = re.sub(r"<[^>]*>", " ", page_of(row).partition('id="sp-live"')[2])
    return " ".join(words.split())


# what happened


def test_what_users_did_is_in_the_timeline(site: Site) -> None:
    row = put("failed", attempts=1, errors='{"attempt": 1, "at": "2026-01-01 10:00:00", "error": "E: old"}\n')
    boss().post(f"{PAGES}{row.pk}/requeue/")
    site.sql("UPDATE snappea_task SET status = 'failed', attempts = 1")
    text = text_of(row)
    assert "boss Requeued" in text and "Attempt 1 failed E: old" in text


# the page


@pytest.mark.parametrize("status", Status.values)
def test_a_page_in_each_state(site: Site, status: str) -> None:
    parent = put("successful", task_name="the.parent")
    row = put(status, args=[41], kwargs={"order": 77}, error=FRAMES, parent_id=parent.pk, claims=1)
    put("ready", task_name="a.child", parent_id=row.pk)
    text = text_of(row)
    for words in ("[ 41 ]", "order 77", "2 library frames", "the.parent #", "1 child", "a.child #"):
        assert words in text, words
    assert str(Status(status).label) in text


def test_the_way_back_and_the_neighbors_are_those_of_the_list(site: Site) -> None:
    rows = [put("failed", queue=queue) for queue in ("mail", "other", "mail", "mail")]
    for q in ("state:failed queue:mail", ""):
        text = page_of(rows[2], q=q)
        neighbors = (rows[3], rows[0]) if q else (rows[3], rows[1])
        links = dict(re.findall(r'rel="(prev|next)"[^>]*href="([^"]*)"', text))
        addresses = [f"{PAGES}{row.pk}/change/?q={quote(q)}" for row in neighbors]
        assert links == dict(zip(("prev", "next"), addresses, strict=True))
        assert f'href="{PAGES}?q={quote(q)}"' in text
    assert (
        'rel="prev"' not in page_of(rows[2])
        and "rel=" not in page_of(rows[2], q="state:bogus").partition("sp-search")[2]
    )


def test_what_a_task_logged_is_shown(site: Site) -> None:
    row = put("failed", attempts=1, log='[1, "2026-01-01 10:00:00", "INFO", "shop", "parcel 3 is packed"]\n')
    assert "parcel 3 is packed" in text_of(row)


def test_arguments_are_named(site: Site) -> None:
    assert "key &quot;x&quot; path" in re.sub(r"\s+", " ", text_of(put_call(wait_for, "x", "/tmp/y")))


def put_call(function: Any, *args: Any, **kwargs: Any) -> Task:
    return Task.objects.get(pk=function.delay(*args, **kwargs).id)


@pytest.mark.parametrize("number", ["999", "9" * 40, "x"])
def test_a_task_that_is_gone_is_no_error(site: Site, number: str) -> None:
    browser = boss()
    response = browser.get(f"{PAGES}{number}/change/")
    assert response.status_code == 302 and response["Location"] == PAGES
    live = browser.get(f"{PAGES}{number}/change/", headers={"X-Snappea-Live": "1"})
    assert live.status_code == 200 and 'data-state="gone"' in live.content.decode()


def test_a_page_is_read_only(site: Site) -> None:
    browser, row = boss(), put("failed", args=[1])
    page = f"{PAGES}{row.pk}/change/"
    assert browser.post(page, {"task_name": "os.system", "args": "[2]"}).status_code == 405
    assert browser.head(page).status_code == 200
    assert client("staff", is_staff=True).get(page).status_code == 403


def test_who_may_only_look_sees_no_button(site: Site) -> None:
    row = put_call(record, 1)
    text = client("viewer", "view").get(f"{PAGES}{row.pk}/change/").content.decode()
    assert "record" in text and "<button" not in text.partition('id="sp-live"')[2]
    assert "/enqueue/" not in text
    assert "/enqueue/" in client("changes", "change").get(f"{PAGES}{row.pk}/change/").content.decode()


# the form


def form(row: Task | None = None, name: str = "", **data: Any) -> Any:
    query = f"like={row.pk}" if row else f"name={name}"
    filled = {
        f"args.{key}" if key not in ("queue", "priority", "countdown") else key: value
        for key, value in data.items()
    }
    return boss().post(f"{PAGES}enqueue/?{query}", filled) if data else boss().get(f"{PAGES}enqueue/?{query}")


def test_a_task_is_enqueued_with_other_arguments(site: Site) -> None:
    old = put("failed", task_name=wait_for.name, args=["old", "/tmp/old"], queue="mail", priority=5)
    text = form(old).content.decode()
    assert "&quot;/tmp/old&quot;" in text and 'value="mail"' in text and 'value="5"' in text
    response = form(old, key='"new"', path='"/tmp/new"', queue="post", priority="7", countdown="60")
    new = Task.objects.get(status="scheduled")
    assert response["Location"] == f"{PAGES}{new.pk}/change/"
    assert (new.args, new.queue, new.priority) == ('["new","/tmp/new"]', "post", 7)
    assert new.parent_id == old.pk and Task.objects.get(pk=old.pk).status == "failed"
    entry = LogEntry.objects.get()
    assert entry.object_id == str(new.pk) and entry.user.username == "boss"
    assert entry.change_message == f'Enqueued, like task #{old.pk}: key="new", path="/tmp/new"'


@pytest.fixture
def ship() -> Any:
    def ship(
        order: int, /, *parcels: int, street: str | None = None, weight: float = 1.5, **more: Any
    ) -> None: ...

    yield task(name="tests.ship")(ship)
    del registry["tests.ship"]


def test_a_call_from_the_form_is_as_in_code(site: Site, ship: Any) -> None:
    form(name="tests.ship", order="5", parcels="[1, 2]", street='"x"', weight="2", more='{"a": null}')
    row = Task.objects.get()
    assert json.loads(row.args) == [5, 1, 2] and row.parent_id is None
    assert json.loads(row.kwargs) == {"street": "x", "weight": 2, "a": None}
    form(name="tests.ship", order="5", parcels="", street="", weight=" ", more="")
    row = Task.objects.latest("pk")
    assert (row.args, row.kwargs) == ("[5]", "{}")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"order": ""}, "This field is required."),
        ({"order": "five"}, "Enter JSON: "),
        ({"order": "1", "weight": "NaN"}, "is nan, which is not JSON"),
        ({"order": "9" * 5000}, "Enter JSON: "),
        ({"order": "[" * 5000}, "Enter JSON: "),
        ({"order": "1", "parcels": "{}"}, "Enter a value of this type: list"),
        ({"order": "1", "queue": "x" * 200}, "at most 100 characters"),
        ({"order": "1", "priority": "101"}, "priority=101 must be from -100 to 100."),
        ({"order": "1", "countdown": "-1"}, "greater than or equal to 0"),
    ],
)
def test_what_a_call_refuses_the_form_refuses(site: Site, ship: Any, data: Any, said: str) -> None:
    response = form(name="tests.ship", **data)
    assert response.status_code == 200 and said in response.content.decode()
    assert not Task.objects.exists() and not LogEntry.objects.exists()


def test_an_unknown_queue_is_refused(site: Site, settings: Any) -> None:
    settings.SNAPPEA = {**settings.SNAPPEA, "QUEUES": {"default": {}}}
    assert (
        "there is no queue &#x27;other&#x27;"
        in form(name=record.name, key="1", queue="other").content.decode()
    )


def test_only_tasks_are_enqueued_and_only_with_permission(site: Site) -> None:
    for name in ("os.system", "", HOSTILE):
        assert form(name=name)["Location"] == PAGES and form(name=name, key="1")["Location"] == PAGES
    looker = client("viewer", "view")
    assert looker.get(f"{PAGES}enqueue/?name={record.name}").status_code == 403
    assert looker.post(f"{PAGES}enqueue/?name={record.name}", {"args.key": "1"}).status_code == 403
    assert not Task.objects.exists()


def test_arguments_of_a_sensitive_task_are_never_filled_in(site: Site) -> None:
    def keep_quiet(word: str) -> None: ...

    made = task(name="tests.quiet", sensitive=True)(keep_quiet)
    row = put_call(made, "a secret")
    try:
        assert "a secret" not in form(row).content.decode()
        form(row, word='"another secret"')
        assert Task.objects.latest("pk").args == '["another secret"]'
        assert "secret" not in LogEntry.objects.get().change_message
    finally:
        del registry["tests.quiet"]


def test_arguments_that_do_not_fit_are_not_filled_in(site: Site) -> None:
    row = put("failed", task_name=record.name, args=[1, 2, 3])
    assert form(row).status_code == 200
    assert "args.args" in form(put("failed", task_name=echo.name, args="not JSON")).content.decode()


def test_the_page_follows_a_task_to_its_end(site: Site) -> None:
    """The part that refreshes itself says so when the task has succeeded and its row is gone."""
    site.foreman()
    path = site.directory / "go"
    row = put_call(wait_for, "x", str(path))
    browser = boss()
    live = {"X-Snappea-Live": "1"}

    def look() -> str:
        return str(browser.get(f"{PAGES}{row.pk}/change/", headers=live).content.decode())

    wait_until(lambda: "Has run" in look())
    path.touch()
    wait_until(lambda: 'data-state="gone"' in look())


def test_it_shows_what_was_done_to_the_task_and_to_nothing_else(site: Site) -> None:
    """A schedule may have the same number."""
    row, someone = put("failed"), user("someone")
    note(someone.pk, "Requeued", "x", row.pk)
    note(someone.pk, "Fired", "x", row.pk, of=Schedule)
    text = boss().get(f"{PAGES}{row.pk}/change/").content.decode()
    assert "Requeued" in text and "Fired" not in text


def test_tags_lead_to_the_tasks_that_have_them(site: Site) -> None:
    row = put("ready", tags=" vip <b> ")
    page = page_of(row)
    assert "?q=tag%3Avip" in page and ">vip</bdi>" in page and "&lt;b&gt;" in page and "<b>" not in page
