"""The admin: lists, permissions, hostile content, and actions on tasks."""

import csv
import io
import json
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connections
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone, translation

from snappea.admin import export, tasks
from snappea.management import console
from snappea.models import LISTS, Status, Task
from snappea.queue import operations, store
from snappea.queue.clock import as_text, now
from snappea.queue.database import connect, raw, transact
from snappea.queue.logbook import Logbook, Note
from snappea.queue.records import Claim
from tests.playground.tasks import fail, nap, record
from tests.site import Made, Site, wait_until
from tests.web import user

HOSTILE = "<script>alert(1)</script></pre>\u202e\0'\"&"
PAGE_OF = {str(status): f"/admin/snappea/{model._meta.model_name}/" for status, model in LISTS.items()}
LIST = "/admin/snappea/task/"
#: The list of each state.
LIST_OF = {status: f"{LIST}?q=state%3A{status}" for status in Status.values}
FAILED = LIST_OF["failed"]


def client(name: str = "boss", *permissions: str, **kinds: Any) -> Client:
    """Return a browser in which a user is logged in; a superuser by default."""
    browser = Client()
    browser.force_login(user(name, *permissions, **(kinds or {"is_superuser": not permissions})))
    return browser


def put(status: str, **columns: Any) -> Task:
    """Return a new task in a state."""
    ended = status in ("failed", "interrupted", "successful", "cancelled")
    columns = {"finished_at": timezone.now() if ended else None} | columns
    task = Task.objects.create(task_name=columns.pop("task_name", "some.task"), status=status, **columns)
    if status == "running":
        note_running(task)
    return task


def note_running(*tasks: Task) -> None:
    """Write to the logbook that tasks run, as a Foreman would."""
    from snappea.queue.database import file_of

    file = file_of(connect())
    assert file
    book = Logbook(file, len(tasks))
    for task in tasks:
        moment = as_text(task.started_at) if task.started_at else None
        claim = Claim(0, task.pk, task.claims, task.task_name, "[]", "{}", started_at=moment)
        book.note(book.enter(claim), Note.BEGUN)
    book.close()


def messages_of(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def act(browser: Client, verb: str, *tasks: Task, **more: Any) -> Any:
    """Apply an action to tasks of a list, as its form and the confirmation do."""
    data = {"ids": [task.pk for task in tasks], "confirmed": "1", "shown": "1", **more}
    return browser.post(f"{LIST}bulk/{verb}/", data, follow=True)


# the lists of the states


@pytest.mark.parametrize(
    ("status", "name"),
    [*zip(Status, ["future", "pending", "active", "failed", "dirty", "finished", "cancelled"], strict=True)],
)
def test_the_addresses_of_the_lists_stay(status: Status, name: str) -> None:
    """Users bookmark these URLs, and projects reverse them."""
    assert reverse(f"admin:snappea_{name}task_changelist") == PAGE_OF[status]
    assert reverse(f"admin:snappea_{name}task_change", args=[7]) == f"/admin/snappea/{name}task/7/change/"


@pytest.mark.parametrize("status", Status.values)
def test_a_list_shows_its_own_and_opens_each(site: Site, status: str) -> None:
    browser = client()
    tasks = {one: put(one, task_name=f"{one}.task", claims=1) for one in Status.values}
    note_running(tasks["running"])
    shown = browser.get(PAGE_OF[status], follow=True)
    assert shown.redirect_chain == [(LIST_OF[status], 302)]
    assert {one for one in Status.values if f"{one}.task" in rows_of(shown)} == {status}
    page = browser.get(f"{PAGE_OF[status]}{tasks[status].pk}/change/", follow=True)
    assert page.redirect_chain == [(f"{LIST}{tasks[status].pk}/change/", 302)]
    assert page.status_code == 200 and f"{status}.task" in page.content.decode()
    everything = rows_of(browser.get(LIST))
    assert all(f"{one}.task" in everything for one in Status.values)


def test_bookmarks_of_filters_lead_to_the_same_tasks(site: Site) -> None:
    columns = {"queue": "a b", "exception": "", "place": 'a.py:3 in "f"'}
    put("failed", task_name="x.wanted", error="100% of it", **columns)
    put("failed", task_name="x.other", error="100% of it", **(columns | {"place": "b.py"}))
    put("failed", task_name="x.third", **columns)
    query = {**columns, "q": "100%", "task_name": "x.wanted"}
    for more in ({}, {"task_name": "x.other", "place": "b.py"}):
        response = client(f"{more}", is_superuser=True).get(PAGE_OF["failed"], {**query, **more}, follow=True)
        assert names_in(response) == {(query | more)["task_name"]}


def test_the_index_counts_them(site: Site) -> None:
    for number, status in enumerate(Status.values):
        tasks = [put(status) for _ in range(number + 1)]
        if status == "running":
            note_running(*tasks)
    for page in ("/admin/", "/admin/snappea/"):
        text = client(f"at {page}").get(page).content.decode()
        for number, status in enumerate(Status):
            assert f"{status.label} ({number + 1})" in text
        assert text.index(">Tasks<") < text.index("Future (") < text.index("Cancelled (")
    with translation.override("de"):
        text = client("in German").get("/admin/").content.decode()
        for number, status in enumerate(Status):
            assert f"{status.label} ({number + 1})" in text


def test_tasks_that_wait_for_their_turn_are_pending_as_well(site: Site) -> None:
    put("ready", lane="x", lane_limit=1, task_name="held.task")
    operations.pause("stopped")
    put("ready", queue="stopped", task_name="stopped.task")
    text = client().get(LIST_OF["ready"]).content.decode()
    assert "a limit: max_concurrency or rate_limit" in text and "its queue to be resumed" in text


def test_what_runs_is_told_by_the_table_where_no_logbook_does(site: Site) -> None:
    Task.objects.create(task_name="lost.task", status="running")
    assert "lost.task" in client().get(LIST_OF["running"]).content.decode()


@pytest.mark.parametrize("number", ["999", "9" * 40, "x"])
def test_a_task_that_is_gone_is_no_error(site: Site, number: str) -> None:
    response = client().get(f"{PAGE_OF['failed']}{number}/change/", follow=True)
    assert response.status_code == 200 and response.redirect_chain[-1][0] == LIST


@pytest.mark.parametrize("status", ["", *Status.values])
def test_no_list_is_sorted_or_scanned(site: Site, status: str) -> None:
    """However many rows there are; a search or a filter scans only those of the state, in order."""
    put(status or "failed")
    browser, state = client(), f"state:{status} " if status else ""
    for query in ("", "some", "queue:default", "task:some.task", "#1", "age:>1h", "args.order:7", "error:x"):
        for more in ("", "&reversed=1", "&page=2"):
            with CaptureQueriesContext(connections["snappea"]) as asked:
                assert browser.get(f"{LIST}?q={quote(state + query)}{more}").status_code == 200
            for statement in (entry["sql"] for entry in asked.captured_queries):
                if "snappea_task" in statement and statement.lstrip().startswith("SELECT"):
                    require_index(site, statement, is_everything=not status)


def require_index(site: Site, statement: str, is_everything: bool) -> None:
    """Fail if a statement sorts, or scans the table but not in the order of the ids."""
    is_of_list = "ORDER BY" in statement and "GROUP BY" not in statement
    for step in (row[3] for row in site.sql(f"EXPLAIN QUERY PLAN {statement}")):
        if "snappea_task" in step and not (is_everything and step == "SCAN snappea_task"):
            assert "INDEX snappea_" in step or "INTEGER PRIMARY KEY" in step, (step, statement)
        assert not is_of_list or "TEMP B-TREE FOR ORDER BY" not in step, (step, statement)


# the list


def rows_of(response: Any) -> str:
    """Return the rows of a list; "" if there is none."""
    return str(response.content.decode().partition('id="list-rows"')[2].partition("</table>")[0])


def names_in(response: Any) -> set[str]:
    return set(re.findall(r'<th scope="row"[^>]* title="([^"]*)"', rows_of(response)))


def found(browser: Client, q: str, **query: str) -> set[str]:
    return names_in(browser.get(LIST, {"q": q, **query}))


def test_rows_show_what_matters(site: Site, made: Made) -> None:
    def ship(order: int, customer: str = "") -> None: ...

    name, moment = made(ship).name, timezone.now()
    put(
        "failed", task_name=name, args=[77], kwargs={"customer": "x"}, error="Traceback\nKeyError: 1",
        started_at=moment - timedelta(seconds=5), finished_at=moment, queue="mail", exception="KeyError",
    )  # fmt: skip
    put("failed", task_name=name, args=["secret"], is_sensitive=True)
    text = rows_of(client().get(FAILED))
    for words in (
        "order=77, customer=&quot;x&quot;",
        ">KeyError: 1<",
        ">mail<",
        ">5.0 s<",
        "hidden",
        ">Failed<",
    ):
        assert words in text
    assert "secret" not in text


def test_rows_show_short_names_and_tags(site: Site, made: Made) -> None:
    def ship() -> None: ...

    name = made(ship).name
    put("failed", task_name=name, tags=" vip b:c ")
    put("failed", task_name="another.made")
    text = rows_of(client().get(FAILED))
    assert ">made</bdi>" in text and ">another.made</bdi>" in text and f'title="{name}"' in text
    assert 'href="?q=tag%3Avip"><bdi>vip<' in text and "?q=tag%3Ab%3Ac" in text


def test_actions_are_in_a_menu_if_they_do_not_apply_to_all(site: Site) -> None:
    put("failed")
    browser = client()
    menus = ['id="bulk-menu"' in browser.get(page).content.decode() for page in (LIST, FAILED)]
    assert menus == [True, False]


def test_filters_are_offered_and_kept(site: Site) -> None:
    task = put("failed", task_name="a.mail", queue="mail", exception="OSError", place="a.py:1 in a")
    put("failed", task_name="b.ship", exception="ValueError", place="b.py:2 in b")
    put("ready", queue="paper")
    browser = client()
    text = browser.get(LIST, {"q": "state:failed queue:mail"}).content.decode()
    for address in ("failed+queue%3Apaper", "failed+queue%3Amail+exception%3AOSError", 'failed"'):
        assert f"?q=state%3A{address}" in text
    assert f"{LIST}{task.pk}/change/?q=state%3Afailed+queue%3Amail" in text
    assert "?q=queue%3Amail+state%3Aready" in text
    assert found(browser, 'exception:OSError place:"b.py:2 in b"') == set()
    assert found(browser, 'exception:ValueError place:"b.py:2 in b"') == {"b.ship"}


def test_pages_and_order(site: Site) -> None:
    for number in range(60):
        put("failed", task_name=f"task.n{number}", finished_at=timezone.now() - timedelta(minutes=number))
    browser = client()
    first, second = (found(browser, "state:failed", page=page) for page in ("1", "2"))
    assert (len(first), len(second)) == (50, 10) and "task.n0" in first and "task.n59" in second
    assert found(browser, "state:failed", page="2", reversed="1") == {
        f"task.n{number}" for number in range(10)
    }
    assert len(found(browser, "task.n")) == 50 and len(found(browser, "task.n", page="2")) == 10
    for page in ("0", "-1", "x", "9" * 30, "9999999"):
        assert browser.get(LIST, {"page": page}).status_code == 200
    text = browser.get(LIST, {"q": "state:failed"}).content.decode()
    assert "Page 1 of 2" in text and "60 tasks" in text and 'rel="next"' in text and 'rel="prev"' not in text


@pytest.mark.parametrize("q", ["state:lost", "color:red", "age:1h", "alert:<script>alert(1)</script> y:z"])
def test_a_search_that_is_wrong_is_explained(site: Site, q: str) -> None:
    put("failed")
    browser = client()
    response = browser.get(LIST, {"q": q})
    text = response.content.decode()
    assert response.status_code == 400 and 'role="alert"' in text and "<script>alert" not in text
    assert "some.task" not in text and browser.get(f"{LIST}export/", {"q": q}).status_code == 400


def test_a_search_that_takes_too_long_says_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    put("failed", task_name="a.needle")
    rows = ", ".join(["('x', '2026-01-01')"] * 20_000)
    site.sql(f"INSERT INTO snappea_task (task_name, enqueued_at) VALUES {rows}")
    monkeypatch.setattr(tasks, "SECONDS", 0.0)
    browser = client()
    text = browser.get(LIST, {"q": "needle"}).content.decode()
    assert (
        "took too long" in text
        and not rows_of(browser.get(LIST, {"q": "needle"}))
        and "q=needle&amp;all=1" in text
    )
    assert found(browser, "needle", all="1") == {"a.needle"}


# what a search finds as a file


def exported(browser: Client, kind: str, q: str = "") -> str:
    response: Any = browser.get(f"{LIST}export/", {"q": q, "format": kind})
    assert response.status_code == 200 and f"tasks.{kind}" in response["Content-Disposition"]
    return b"".join(response.streaming_content).decode()


def test_export(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "AT_ONCE", 2)
    error = f'"{HOSTILE}"\n'.replace("\0", "")
    for number in range(5):
        put("failed", task_name=f"task.n{number}", kwargs={"order": number}, error=error)
    put("ready")
    browser = client()
    rows = json.loads(exported(browser, "json", "state:failed"))
    assert [row["task_name"] for row in rows] == [f"task.n{number}" for number in (4, 3, 2, 1, 0)]
    assert rows[0]["arguments"] == {"order": 4} and rows[0]["error"] == error
    (line,) = csv.DictReader(io.StringIO(exported(browser, "csv", "state:failed task:n3"), newline=""))
    assert line["arguments"] == '{"order": 3}' and line["error"] == error
    assert json.loads(exported(browser, "json", "queue:none")) == []
    assert exported(browser, "csv").count("some.task") == 1
    assert browser.get(f"{LIST}export/", {"format": "xml"}).status_code == 400


def test_an_export_is_no_program_and_tells_no_secret(site: Site) -> None:
    for start in "=+-@\t\r":
        columns: Any = {
            "error": f"{start}SUM(1)",
            "queue": f"{start}1",
            "args": ["marker"],
            "is_sensitive": True,
        }
        put("failed", task_name=f"{start}cmd", **columns)
    browser = client()
    text = exported(browser, "csv")
    for line in csv.reader(io.StringIO(text, newline="")):
        assert not [cell for cell in line if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert "'=SUM(1)" in text and "marker" not in text + exported(browser, "json")


def test_who_may_not_see_tasks_gets_no_file(site: Site) -> None:
    put("failed")
    assert client("other", is_staff=True).get(f"{LIST}export/").status_code == 403
    assert exported(client("looks", "view"), "csv").count("some.task") == 1
    assert client("boss", is_superuser=True).post(f"{LIST}export/").status_code == 405


def test_rows_written_by_hand_are_exported(site: Site) -> None:
    put("failed", args="[1", kwargs="no JSON")
    put("failed")
    site.sql("UPDATE snappea_task SET enqueued_at = 'soon' WHERE id = 2")
    rows = json.loads(exported(client(), "json"))
    assert [row["id"] for row in rows] == [2, 1]
    assert rows[1]["arguments"] == {"args": "[1", "kwargs": "no JSON"}


# what can be done


def test_requeue_cancel_terminate_delete(site: Site) -> None:
    browser = client()
    for status, verb, after, words in (
        ("failed", "requeue", "ready", "Requeued: 1 task."),
        ("interrupted", "requeue", "ready", "Requeued: 1 task."),
        ("cancelled", "requeue", "ready", "Requeued: 1 task."),
        ("successful", "requeue", "ready", "Requeued: 1 task."),
        ("scheduled", "requeue", "ready", "Requeued: 1 task."),
        ("ready", "cancel", None, "Cancelled: 1 task."),
        ("scheduled", "cancel", None, "Cancelled: 1 task."),
        ("running", "terminate", "running", "Asked to end: 1 task."),
        ("failed", "delete", None, "Deleted: 1 task."),
        ("cancelled", "delete", None, "Deleted: 1 task."),
    ):
        for by_list in (True, False):
            task = put(status)
            if by_list:
                response = act(browser, verb, task)
            else:
                confirmed = {"confirmed": "1", "shown": "1"}
                response = browser.post(f"{LIST}{task.pk}/{verb}/", confirmed, follow=True)
            row = Task.objects.filter(pk=task.pk).first()
            assert (row.status if row else None) == after, (status, verb)
            assert words in messages_of(response)
            assert verb != "terminate" or (row and row.is_revoked)
            entry = LogEntry.objects.latest("pk")
            assert (entry.user.username, entry.object_id) == ("boss", str(task.pk))
            assert entry.object_repr == f"some.task #{task.pk}" and entry.change_message
            Task.objects.all().delete()


def test_requeue_with_a_delay(site: Site) -> None:
    browser = client()
    task = put("failed")
    response = act(browser, "postpone", task, delay="90")
    task.refresh_from_db()
    assert task.status == "scheduled" and task.run_after
    assert 80 < (task.run_after - timezone.now()).total_seconds() <= 90
    assert messages_of(response) == ["Requeued with a delay of 2 min: 1 task."] or messages_of(response) == [
        "Requeued with a delay of 1 min 30 s: 1 task."
    ]


@pytest.mark.parametrize("delay", ["", "x", "-1", "nan", "inf", "1e99"])
def test_a_delay_that_is_none(site: Site, delay: str) -> None:
    browser, task = client(), put("failed")
    act(browser, "postpone", task, delay=delay)
    browser.post(f"{LIST}{task.pk}/postpone/", {"delay": delay, "confirmed": "1"})
    task.refresh_from_db()
    assert task.status == "failed"


def test_what_has_moved_on_is_reported_and_left_alone(site: Site) -> None:
    """A list that was left open: fault 33."""
    browser = client()
    failed, running, waiting, gone = (put("failed", task_name=name) for name in "abcd")
    Task.objects.filter(pk=running.pk).update(status="running")
    Task.objects.filter(pk=waiting.pk).update(status="ready")
    Task.objects.filter(pk=gone.pk).delete()
    response = act(browser, "requeue", failed, running, waiting, gone)
    (said,) = messages_of(response)
    assert said.startswith("Requeued: 1 task. 3 skipped: ")
    for reason in ("1 Active", "1 Pending", "1 changed or gone"):
        assert reason in said
    assert Task.objects.get(pk=running.pk).status == "running"


def test_a_state_that_was_written_by_hand_is_reported_as_it_is(site: Site) -> None:
    task = put("failed")
    site.sql("UPDATE snappea_task SET status = 'bogus'")
    (said,) = messages_of(act(client(), "requeue", task))
    assert said == "Requeued: 0 tasks. 1 skipped: 1 bogus."


@pytest.mark.parametrize("verb", ["cancel", "requeue"])
def test_decisions_race_with_the_foreman_and_nothing_breaks(site: Site, verb: str) -> None:
    """Each task is either changed or started: never both, never neither."""
    count, browser = 300, client()
    tasks = store.enqueue_many([record.call((key,), {}) for key in range(count)])
    if verb == "requeue":
        site.sql("UPDATE snappea_task SET status = 'scheduled', run_after = ?", now())
    site.foreman(NUM_WORKERS=2)
    changed = 0
    for at in range(0, count, 20):
        ids = [task_id for task_id, _is_new in tasks[at : at + 20]]
        data = {"ids": ids, "confirmed": "1", "shown": "20"}
        response = browser.post(f"{LIST}bulk/{verb}/", data, follow=True)
        (found,) = re.findall(r"^(?:Requeued|Cancelled): (\d+) task", "\n".join(messages_of(response)), re.M)
        changed += int(found)
    wait_until(lambda: not site.counts())
    starts = site.ledger.keys("start")
    assert set(starts.values()) <= {1}
    assert len(starts) == (count - changed if verb == "cancel" else count)


def test_no_user_edits_a_task(site: Site) -> None:
    browser, task = client(), put("failed", args=[1])
    page = f"{LIST}{task.pk}/change/"
    assert browser.post(page, {"task_name": "os.system", "args": "[2]"}).status_code == 405
    for address in (f"{PAGE_OF['failed']}add/", f"{LIST}add/"):
        assert (
            browser.get(address).status_code == browser.post(address, {"task_name": "x"}).status_code == 404
        )
    assert Task.objects.values_list("task_name", "args").get() == ("some.task", "[1]")


# permissions

POSTS: dict[str, tuple[str, dict[str, Any]]] = {
    "requeue": ("{page}{pk}/requeue/", {}),
    "postpone": ("{page}{pk}/postpone/", {"delay": "5"}),
    "delete": ("{page}{pk}/delete/", {"confirmed": "1", "shown": "1"}),
    "requeue some": ("{page}bulk/requeue/", {"ids": "{pk}", "confirmed": "1", "shown": "1"}),
    "delete some": ("{page}bulk/delete/", {"ids": "{pk}", "confirmed": "1", "shown": "1"}),
    "pause": ("/admin/snappea/dashboard/pause/", {"queue": "default"}),
    "resume": ("/admin/snappea/dashboard/resume/", {"queue": "default"}),
}
USERS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "nobody": ((), {}),
    "not of the staff": (("view", "change", "delete"), {"is_staff": False}),
    "staff": ((), {"is_staff": True}),
    "view": (("view",), {"is_staff": True}),
    "change": (("change",), {"is_staff": True}),
    "delete": (("view", "delete"), {"is_staff": True}),
    "superuser": ((), {"is_superuser": True, "is_staff": True}),
}


@pytest.mark.parametrize("who", USERS)
def test_the_matrix_of_permissions(site: Site, who: str) -> None:
    permissions, kinds = USERS[who]
    browser = Client() if who == "nobody" else client(who, *permissions, **kinds)
    sees = who in ("view", "change", "delete", "superuser")
    changes, deletes = who in ("change", "superuser"), who in ("delete", "superuser")
    for verb, (address, data) in POSTS.items():
        task = put("failed")
        path = address.format(page=LIST, pk=task.pk)
        filled = {key: value.format(pk=task.pk) for key, value in data.items()}
        before = Task.objects.order_by("pk").values_list("pk", "status"), operations.paused()
        seen = list(before[0])
        response = browser.post(path, filled)
        may = deletes if "delete" in verb else changes
        if may:
            assert response.status_code == 302 and "login" not in response["Location"], verb
        else:
            refused = response.status_code == 403 or "/login/" in response.get("Location", "")
            assert refused and list(before[0].all()) == seen and operations.paused() == before[1], verb
        Task.objects.all().delete()
    task = put("failed")
    for page in ("/admin/snappea/dashboard/", FAILED, f"{LIST}{task.pk}/change/", LIST_OF["ready"]):
        assert (browser.get(page).status_code == 200) == sees, page


def test_who_may_only_look_sees_no_button(site: Site) -> None:
    task = put("failed")
    browser = client("viewer", "view")
    for page in ("/admin/snappea/dashboard/", FAILED, f"{LIST}{task.pk}/change/"):
        text = browser.get(page).content.decode().partition('id="content"')[2]
        assert "some.task" in text and "<button" not in text and 'name="ids"' not in text, page
    act(browser, "requeue", task)
    assert Task.objects.get().status == "failed"


@pytest.mark.parametrize("verb", POSTS)
def test_what_changes_something_is_a_post_with_a_token(site: Site, verb: str) -> None:
    task = put("failed")
    address, data = POSTS[verb]
    path = address.format(page=LIST, pk=task.pk)
    browser = client()
    assert browser.get(path).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(user("strict", is_superuser=True))
    assert strict.post(path, data).status_code == 403
    assert Task.objects.get().status == "failed" and not operations.paused()


def test_no_redirect_leads_to_where_a_header_says(site: Site) -> None:
    browser = client()
    for address, data in POSTS.values():
        task = put("failed")
        filled = {key: value.format(pk=task.pk) for key, value in data.items()}
        for headers in ({"referer": "https://evil.example/"}, {"referer": "//evil.example"}):
            path = address.format(page=LIST, pk=task.pk)
            assert browser.post(path, filled, headers=headers)["Location"].startswith("/admin/snappea/")
            response = browser.post(f"{path}?next=https://evil.example/", filled, headers=headers)
            assert response.status_code == 400 or response["Location"].startswith("/admin/snappea/")


# what is shown


def test_hostile_content_is_shown_as_text(site: Site) -> None:
    columns = {
        "task_name": HOSTILE,
        "args": json.dumps([HOSTILE]),
        "kwargs": json.dumps({HOSTILE: HOSTILE}),
        "queue": HOSTILE,
        "error": f'  File "{HOSTILE}", line 1, in x\n{HOSTILE}: {HOSTILE}',
        "errors": json.dumps({"attempt": 1, "at": HOSTILE, "error": HOSTILE}) + "\n",
        "progress_note": HOSTILE,
        "progress_done": 1.0,
        "result": json.dumps(HOSTILE),
        "exception": HOSTILE,
        "place": HOSTILE,
        "lane": HOSTILE,
    }
    tasks = {status: put(status, **columns) for status in Status.values}
    note_running(tasks["running"])
    operations.pause(HOSTILE)
    browser = client()
    pages = ["/admin/", "/admin/snappea/dashboard/", LIST, f"{LIST}?q={quote(json.dumps(HOSTILE))}"]
    for status, task in tasks.items():
        pages += [LIST_OF[status], f"{LIST}{task.pk}/change/"]
    for page in pages:
        text = browser.get(page).content.decode()
        assert "alert(1)" in text or page == "/admin/"
        for raw_text in ("<script>alert", "</pre>\\u", "\u202e", "\0"):
            # a value that goes back to the server is in an attribute, and arrives as it is
            assert raw_text not in _without_values(text), (page, raw_text)
        assert "<script>alert" not in text


def _without_values(text: str) -> str:
    import re

    return re.sub(r'value="[^"]*"|data-queue="[^"]*"', "", text)


def test_long_and_broken_things_are_shown_in_part(site: Site) -> None:
    task = put("failed", args="[" * 50_000, kwargs="not JSON", error="x" * 100_000, errors="broken\n")
    text = client().get(f"{LIST}{task.pk}/change/").content.decode()
    assert "characters are left out" in text and "not JSON" in text and len(text) < 100_000


def test_the_page_of_a_task(site: Site) -> None:
    parent = put("successful")
    task = put(
        "failed",
        args=["an argument"],
        parent_id=parent.pk,
        attempts=2,
        progress_done=3,
        progress_total=4,
        progress_note="resizing",
        errors='{"attempt": 1, "at": "2026-01-01 12:00:00", "error": "E: the first"}\n',
        error='Traceback (most recent call last):\n  File "a.py", line 1, in f\n    f()\nE: the second',
    )
    browser = client()
    browser.post(f"{LIST}{task.pk}/requeue/")
    site.sql("UPDATE snappea_task SET status = 'failed'")
    text = browser.get(f"{LIST}{task.pk}/change/").content.decode()
    for words in ("an argument", "E: the first", "E: the second", f"task #{parent.pk}", "Requeued", "boss"):
        assert words in text
    assert "File &quot;a.py&quot;, line 1, in f" in text


def test_progress_is_a_bar(site: Site) -> None:
    task = put("running", progress_done=3, progress_total=4, progress_note="resizing")
    browser = client()
    for page in (LIST_OF["running"], f"{LIST}{task.pk}/change/", "/admin/snappea/dashboard/"):
        text = browser.get(page).content.decode()
        assert "<progress " in text and "resizing" in text


# sensitive tasks


def test_a_secret_of_a_sensitive_task_is_nowhere_to_be_seen(site: Site) -> None:
    """Not in the log, not in the admin, not found by search, however the task fails."""
    from tests.playground import sensitive

    foreman = site.foreman("-v2", LOG_ARGUMENTS=True)
    secret = sensitive.SECRET
    for key in sensitive.TASKS:
        getattr(sensitive, key).delay(secret, key=secret)
    wait_until(lambda: not {"ready", "running"} & set(site.counts()))
    assert foreman.stop() == 0
    rows = Task.objects.in_bulk().values()
    assert {row.status for row in rows} == {"failed", "successful", "scheduled"}
    browser = client()
    for row in rows:
        assert secret not in row.error + row.errors + row.exception + row.place + repr(row) + str(row)
        page = browser.get(f"{LIST}{row.pk}/change/").content.decode()
        assert secret not in page and "not shown" in page
    for page in ("/admin/snappea/dashboard/", *LIST_OF.values()):
        assert secret not in browser.get(page).content.decode()
    assert not found(browser, secret)
    assert "sensitive.fail_with_it" in foreman.output() and secret not in foreman.output()


def test_nothing_answers_what_a_sensitive_task_was_given(site: Site) -> None:
    """Neither through a URL parameter nor through keys that contain arguments."""
    text = {"args": '["marker"]', "kwargs": '{"key": "marker"}'}
    for status in ("failed", "ready", "successful"):
        put(
            status,
            is_sensitive=True,
            lane="x.y:marker",
            unique_key=f"marker{status}",
            task_name="x.y",
            **text,
        )
    looker = client("looks", "view")
    models: list[type[Model]] = [Task, *LISTS.values()]
    for model in models:
        page = f"/admin/snappea/{model._meta.model_name}/"
        for field in ("args", "kwargs", "lane", "unique_key", "result", "errors", "error", "progress_note"):
            if field not in {column.name for column in model._meta.get_fields()}:
                continue
            is_list = page == LIST  # which has no such parameters; the other pages lead to it
            lookups = ("", "__contains", "__startswith", "__regex", "__isnull", "__gt") if is_list else ("",)
            for lookup in lookups:
                response = looker.get(page, {field + lookup: "marker"})
                assert is_list or "x.y" not in response.content.decode(), (page, field, lookup)
                query = {"q": f"{field}{lookup}:marker", "o": "-args.1"}
                assert "x.y" not in rows_of(looker.get(page, query, follow=True)), query
        for q in ("marker", "args.key:marker", "error:marker", "log:marker"):
            assert "x.y" not in rows_of(looker.get(page, {"q": q, "o": "-args.1"}, follow=True))
    for task in Task.objects.all():
        page = looker.get(f"{LIST}{task.pk}/change/").content.decode()
        assert "marker" not in page and "Shares limits with" in page
        assert "marker" not in "".join(console.one(task)) + json.dumps(console.as_data(task))


def test_attempts_are_numbered_on_after_a_requeue_and_shown_in_the_sites_time(
    site: Site, settings: Any
) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    line = '{{"attempt": {}, "at": "2026-01-01 12:00:00.5", "error": "ValueError: \\u00fc"}}\n'
    errors = "".join(line.format(number) for number in (1, 2, 1, 1))
    task = put("failed", attempts=1, errors=errors + '{"attempt": null, "at": "nonsense", "error": "x"}\n')
    assert [error["attempt"] for error in task.attempt_errors()] == [1, 2, 3, 4, None]
    page = client().get(f"{LIST}{task.pk}/change/").content.decode()
    assert page.count("01/01/2026 21:00:00") == 4 and "nonsense" in page
    assert "since it was requeued" in page
    shown = "\n".join(console.one(task))
    assert "4. at 2026-01-01 21:00:00: ValueError: ü" in shown


def test_a_row_stays_sensitive_when_its_task_is_gone(site: Site, made: Made) -> None:
    def keep_quiet(word: str) -> None:
        pass

    made_task = task_of(keep_quiet)
    made_task.delay("a secret")
    from snappea.tasks.function import registry

    del registry[made_task.name]
    row = Task.objects.get()
    assert "a secret" not in client().get(f"{LIST}{row.pk}/change/").content.decode()


def task_of(function: Callable[..., None]) -> Any:
    from snappea import task

    return task(name="tests.sensitive", sensitive=True)(function)


# warnings


def test_the_admin_warns_when_no_foreman_runs(site: Site) -> None:
    browser = client()
    pages = ("/admin/", "/admin/snappea/", FAILED, "/admin/snappea/dashboard/")
    for page in pages:
        assert "No Foreman runs" in browser.get(page).content.decode(), page
    site.foreman()
    for page in pages:
        assert "No Foreman runs" not in browser.get(page).content.decode(), page


def test_the_admin_warns_when_tasks_wait_for_long(site: Site, settings: Any) -> None:
    browser = client()
    put("ready", enqueued_at=timezone.now() - timedelta(minutes=5))
    assert "has waited for 30" in browser.get("/admin/").content.decode()
    settings.SNAPPEA = {**settings.SNAPPEA, "WARN_BACKLOG_SECONDS": 600}
    assert "has waited" not in browser.get("/admin/").content.decode()
    settings.SNAPPEA = {**settings.SNAPPEA, "WARN_BACKLOG_SECONDS": None}
    assert "has waited" not in browser.get("/admin/").content.decode()


def test_who_may_not_see_tasks_is_not_warned(site: Site) -> None:
    assert "No Foreman" not in client("staff", is_staff=True).get("/admin/").content.decode()


def test_the_admin_works_without_the_queue(site: Site) -> None:
    browser = client()
    site.sql("DROP TABLE snappea_task")
    response = browser.get("/admin/")
    assert response.status_code == 200 and "it has no table snappea_task" in response.content.decode()


def test_a_setting_that_is_wrong_is_said_in_a_sentence(site: Site, settings: Any) -> None:
    """Also without the view permission, when the queue is not checked first."""
    browsers = client(), client("other", is_staff=True)
    settings.SNAPPEA = {**site.settings, "NUM_WORKERS": 0}
    assert [browser.get(FAILED).status_code for browser in browsers] == [503, 503]


def test_the_foreman_claims_while_the_lists_are_open(site: Site) -> None:
    """Readers do not slow down writers, and no list breaks because of concurrent changes."""
    site.foreman(NUM_WORKERS=2)
    browser, is_over = client(), threading.Event()
    failures: list[Any] = []

    def look() -> None:
        from django.db import connections

        mine = Client()
        mine.cookies = browser.cookies
        while not is_over.is_set():
            for page in ("/admin/snappea/dashboard/", LIST_OF["running"], LIST_OF["ready"]):
                if mine.get(page).status_code != 200:
                    failures.append(page)
        connections.close_all()

    other = threading.Thread(target=look)
    other.start()
    for key in range(300):
        record.delay(key)
        if key % 50 == 0:
            fail.delay(key)
            nap.delay(key, 0.01)
    site.wait_until_empty()
    is_over.set()
    other.join()
    assert not failures and len(site.ledger.keys("end")) == 300


def test_a_statement_of_the_admin_is_a_transaction_of_its_own(site: Site) -> None:
    """Changes to tasks are not rolled back with the request, nor do they hold the lock during it."""
    task = put("failed")
    client().post(f"{LIST}{task.pk}/requeue/")
    with transact(connect()) as db:
        assert db is raw(connect())
    assert Task.objects.get().status == "ready"
