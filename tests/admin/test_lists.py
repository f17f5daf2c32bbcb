"""The admin: lists, permissions, hostile content, and actions on tasks."""

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db.models import Model
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from snappea.admin.columns import LAYOUTS
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
FAILED = PAGE_OF["failed"]


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


def act(browser: Client, page: str, verb: str, *tasks: Task, **more: Any) -> Any:
    """Apply an action to tasks of a list, as its form does."""
    data = {"action": verb, "_selected_action": [task.pk for task in tasks], **more}
    return browser.post(page, data, follow=True)


# the groups


def test_there_is_a_list_for_each_state() -> None:
    assert set(LISTS) == set(LAYOUTS) == set(Status)


@pytest.mark.parametrize(
    ("status", "name"),
    [*zip(Status, ["future", "pending", "active", "failed", "dirty", "finished", "cancelled"], strict=True)],
)
def test_the_addresses_of_the_lists_stay(status: Status, name: str) -> None:
    """Users bookmark these URLs, and projects reverse them."""
    assert reverse(f"admin:snappea_{name}task_changelist") == PAGE_OF[status]
    assert reverse(f"admin:snappea_{name}task_change", args=[7]) == f"/admin/snappea/{name}task/7/change/"


@pytest.mark.parametrize("status", Status.values)
def test_a_group_shows_its_own_and_opens_each(site: Site, status: str) -> None:
    browser = client()
    tasks = {one: put(one, task_name=f"{one}.task", claims=1) for one in Status.values}
    note_running(tasks["running"])
    shown = browser.get(PAGE_OF[status]).content.decode()
    assert {one for one in Status.values if f"{one}.task #" in shown} == {status}
    page = browser.get(f"{PAGE_OF[status]}{tasks[status].pk}/change/")
    assert page.status_code == 200 and f"{status}.task" in page.content.decode()


def test_the_index_counts_them(site: Site) -> None:
    for number, status in enumerate(Status.values):
        tasks = [put(status) for _ in range(number + 1)]
        if status == "running":
            note_running(*tasks)
    for page in ("/admin/", "/admin/snappea/"):
        text = client(f"at {page}").get(page).content.decode()
        for number, status in enumerate(Status):
            assert f"{status.label} ({number + 1})" in text
        assert text.index("Overview") < text.index("Future (") < text.index("Cancelled (")


def test_tasks_that_wait_for_their_turn_are_pending_as_well(site: Site) -> None:
    put("ready", lane="x", lane_limit=1, task_name="held.task")
    operations.pause("stopped")
    put("ready", queue="stopped", task_name="stopped.task")
    text = client().get(PAGE_OF["ready"]).content.decode()
    assert "a limit: max_concurrency or rate_limit" in text and "its queue to be resumed" in text


def test_what_runs_is_told_by_the_table_where_no_logbook_does(site: Site) -> None:
    Task.objects.create(task_name="lost.task", status="running")
    assert "lost.task" in client().get(PAGE_OF["running"]).content.decode()


def test_a_task_that_has_moved_on_is_shown_where_it_is_now(site: Site) -> None:
    task = put("failed")
    operations.requeue(Task.objects.all())
    response = client().get(f"{FAILED}{task.pk}/change/")
    assert response.status_code == 302 and response["Location"] == f"{PAGE_OF['ready']}{task.pk}/change/"


@pytest.mark.parametrize("number", ["999", "9" * 40, "x"])
def test_a_task_that_is_gone_is_no_error(site: Site, number: str) -> None:
    response = client().get(f"{FAILED}{number}/change/", follow=True)
    assert response.status_code == 200 and response.redirect_chain[-1][0] == FAILED


@pytest.mark.parametrize("status", Status.values)
def test_no_list_is_sorted_or_scanned(site: Site, status: str) -> None:
    """However many rows there are; a search or a filter scans only those of the state."""
    from django.db import connections
    from django.test.utils import CaptureQueriesContext

    put(status)
    browser = client()
    with CaptureQueriesContext(connections["snappea"]) as asked:
        for query in ("", "q=some", "queue=default", "task_name=some.task", "p=0", "q=%231"):
            assert browser.get(f"{PAGE_OF[status]}?{query}").status_code == 200
    for statement in (entry["sql"] for entry in asked.captured_queries):
        if "snappea_task" not in statement or not statement.lstrip().startswith("SELECT"):
            continue
        for step in (row[3] for row in site.sql(f"EXPLAIN QUERY PLAN {statement}")):
            if "snappea_task" in step:
                assert "INDEX snappea_" in step or "INTEGER PRIMARY KEY" in step, (step, statement)
            assert "TEMP B-TREE FOR ORDER BY" not in step, (step, statement)


# search and filters


def found(browser: Client, page: str, **query: str) -> set[str]:
    return {task.task_name for task in browser.get(page, query).context["cl"].result_list}


def test_search_by_name_arguments_error_and_number(site: Site) -> None:
    first = put("failed", task_name="a.mail", args=["needle"], error="E: one")
    put("failed", task_name="b.ship", kwargs={"order": "haystack"}, error="E: 100% of it")
    browser = client()
    assert found(browser, FAILED, q="mail") == found(browser, FAILED, q="needle") == {"a.mail"}
    assert found(browser, FAILED, q=f"#{first.pk}") == {"a.mail"}
    assert found(browser, FAILED, q="haystack") == found(browser, FAILED, q="100%") == {"b.ship"}
    assert found(browser, FAILED, q="E:") == {"a.mail", "b.ship"} and not found(browser, FAILED, q="nothing")


def test_filters(site: Site) -> None:
    long_ago = timezone.now() - timedelta(days=100)
    put("failed", task_name="a.mail", queue="mail", exception="OSError", place="a.py:1 in a")
    put("failed", task_name="b.ship", exception="ValueError", place="b.py:2 in b", finished_at=long_ago)
    browser = client()
    assert found(browser, FAILED, queue="mail") == {"a.mail"}
    assert found(browser, FAILED, task_name="b.ship") == {"b.ship"}
    assert found(browser, FAILED, exception="OSError") == {"a.mail"}
    assert found(browser, FAILED, exception="OSError", place="b.py:2 in b") == set()
    assert found(browser, FAILED, exception="ValueError", place="b.py:2 in b") == {"b.ship"}
    day = (timezone.now() - timedelta(days=1)).date().isoformat()
    assert found(browser, FAILED, finished_at__gte=day) == {"a.mail"}
    text = browser.get(FAILED).content.decode()
    assert "OSError (1)" in text and "ValueError (1)" in text


@pytest.mark.parametrize("lookup", ["args__startswith", "error__regex", "result", "is_revoked"])
def test_what_no_filter_offers_is_refused(site: Site, lookup: str) -> None:
    """Otherwise hidden arguments could be guessed letter by letter."""
    put("failed")
    browser = client()
    assert browser.get(FAILED, {lookup: "x"}).status_code == 400
    assert browser.post(f"{FAILED}all/requeue/?{lookup}=x").status_code == 400


# what can be done


def test_requeue_cancel_terminate_delete(site: Site) -> None:
    browser = client()
    for status, verb, after, words in (
        ("failed", "requeue", "ready", "1 task was requeued."),
        ("interrupted", "requeue", "ready", "1 task was requeued."),
        ("cancelled", "requeue", "ready", "1 task was requeued."),
        ("successful", "requeue", "ready", "1 task was requeued."),
        ("scheduled", "requeue", "ready", "1 task was requeued."),
        ("ready", "cancel", None, "1 task was cancelled."),
        ("scheduled", "cancel", None, "1 task was cancelled."),
        ("running", "terminate", "running", "1 task was asked to end."),
        ("failed", "delete", None, "1 task was deleted."),
        ("cancelled", "delete", None, "1 task was deleted."),
    ):
        for by_list in (True, False):
            task = put(status)
            if by_list:
                response = act(browser, PAGE_OF[status], verb, task)
            else:
                response = browser.post(f"{PAGE_OF[status]}{task.pk}/{verb}/", follow=True)
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
    response = act(browser, FAILED, "postpone", task, delay="90")
    task.refresh_from_db()
    assert task.status == "scheduled" and task.run_after
    assert 80 < (task.run_after - timezone.now()).total_seconds() <= 90
    assert messages_of(response) == ["1 task was requeued with a delay of 2 min."] or messages_of(
        response
    ) == ["1 task was requeued with a delay of 1 min 30 s."]


@pytest.mark.parametrize("delay", ["", "x", "-1", "nan", "inf", "1e99"])
def test_a_delay_that_is_none(site: Site, delay: str) -> None:
    browser, task = client(), put("failed")
    act(browser, FAILED, "postpone", task, delay=delay)
    browser.post(f"{FAILED}{task.pk}/postpone/", {"delay": delay})
    task.refresh_from_db()
    assert task.status == "failed"


def test_all_of_a_filter_are_requeued(site: Site) -> None:
    for number in range(130):
        put("failed", task_name=f"task.{number % 2}")
    browser = client()
    text = browser.get(FAILED, {"task_name": "task.1"}).content.decode()
    assert "Requeue all 65 of this filter" in text
    response = browser.post(f"{FAILED}all/requeue/?task_name=task.1", follow=True)
    assert messages_of(response) == ["65 tasks were requeued."]
    assert response.redirect_chain[-1][0] == f"{FAILED}?task_name=task.1"
    assert set(Task.objects.filter(status="ready").values_list("task_name", flat=True)) == {"task.1"}
    assert Task.objects.filter(status="failed").count() == 65


def test_all_that_are_selected_across_pages(site: Site) -> None:
    tasks = [put("failed") for _ in range(130)]
    response = act(client(), FAILED, "requeue", tasks[0], select_across="1")
    assert messages_of(response) == ["130 tasks were requeued."]
    entry = LogEntry.objects.get()
    assert entry.object_repr.startswith("130 tasks") and entry.change_message == "Requeued"


def test_what_has_moved_on_is_reported_and_left_alone(site: Site) -> None:
    """A list that was left open: fault 33."""
    browser = client()
    failed, running, waiting, gone = (put("failed", task_name=name) for name in "abcd")
    Task.objects.filter(pk=running.pk).update(status="running")
    Task.objects.filter(pk=waiting.pk).update(status="ready")
    Task.objects.filter(pk=gone.pk).delete()
    response = act(browser, FAILED, "requeue", failed, running, waiting, gone)
    (said,) = messages_of(response)
    assert said.startswith("1 task was requeued. 3 skipped: ")
    for reason in ("1 Active", "1 Pending", "1 gone"):
        assert reason in said
    assert Task.objects.get(pk=running.pk).status == "running"


def test_a_state_that_was_written_by_hand_is_reported_as_it_is(site: Site) -> None:
    task = put("failed")
    site.sql("UPDATE snappea_task SET status = 'bogus'")
    (said,) = messages_of(act(client(), FAILED, "requeue", task))
    assert said == "0 tasks were requeued. 1 skipped: 1 bogus."


@pytest.mark.parametrize("verb", ["cancel", "requeue"])
def test_decisions_race_with_the_foreman_and_nothing_breaks(site: Site, verb: str) -> None:
    """Each task is either changed or started: never both, never neither."""
    count, browser = 300, client()
    tasks = store.enqueue_many([record.call((key,), {}) for key in range(count)])
    status = "ready"
    if verb == "requeue":
        site.sql("UPDATE snappea_task SET status = 'scheduled', run_after = ?", now())
        status = "scheduled"
    site.foreman(NUM_WORKERS=2)
    changed = 0
    for at in range(0, count, 20):
        ids = [task_id for task_id, _is_new in tasks[at : at + 20]]
        response = browser.post(PAGE_OF[status], {"action": verb, "_selected_action": ids}, follow=True)
        said = next(said for said in messages_of(response) if " were " in said or " was " in said)
        changed += int(said.split()[0])
    wait_until(lambda: not site.counts())
    starts = site.ledger.keys("start")
    assert set(starts.values()) <= {1}
    assert len(starts) == (count - changed if verb == "cancel" else count)


def test_no_user_edits_a_task(site: Site) -> None:
    browser, task = client(), put("failed", args=[1])
    page = f"{FAILED}{task.pk}/change/"
    assert browser.post(page, {"task_name": "os.system", "args": "[2]"}).status_code == 405
    assert browser.get(f"{FAILED}add/").status_code == 404
    assert browser.post(f"{FAILED}add/", {"task_name": "x"}).status_code == 404
    assert Task.objects.values_list("task_name", "args").get() == ("some.task", "[1]")


# permissions

POSTS: dict[str, tuple[str, dict[str, Any]]] = {
    "requeue": ("{page}{pk}/requeue/", {}),
    "postpone": ("{page}{pk}/postpone/", {"delay": "5"}),
    "delete": ("{page}{pk}/delete/", {}),
    "requeue all": ("{page}all/requeue/", {}),
    "delete all": ("{page}all/delete/", {}),
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
        path = address.format(page=FAILED, pk=task.pk)
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
    for page in ("/admin/snappea/dashboard/", FAILED, f"{FAILED}{task.pk}/change/", PAGE_OF["ready"]):
        assert (browser.get(page).status_code == 200) == sees, page


def test_who_may_only_look_sees_no_button(site: Site) -> None:
    task = put("failed")
    browser = client("viewer", "view")
    for page in ("/admin/snappea/dashboard/", FAILED, f"{FAILED}{task.pk}/change/"):
        text = browser.get(page).content.decode().partition('id="content"')[2]
        assert "some.task" in text and "<button" not in text and 'name="action"' not in text, page
    act(browser, FAILED, "requeue", task)
    assert Task.objects.get().status == "failed"


@pytest.mark.parametrize("verb", POSTS)
def test_what_changes_something_is_a_post_with_a_token(site: Site, verb: str) -> None:
    task = put("failed")
    address, data = POSTS[verb]
    path = address.format(page=FAILED, pk=task.pk)
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
            path = address.format(page=FAILED, pk=task.pk)
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
    pages = ["/admin/", "/admin/snappea/dashboard/", f"{FAILED}?exception=x"]
    for status, task in tasks.items():
        pages += [PAGE_OF[status], f"{PAGE_OF[status]}{task.pk}/change/"]
    for page in pages:
        text = browser.get(page).content.decode()
        assert "alert(1)" in text or page in ("/admin/", f"{FAILED}?exception=x")
        for raw_text in ("<script>alert", "</pre>\\u", "\u202e", "\0"):
            # a value that goes back to the server is in an attribute, and arrives as it is
            assert raw_text not in _without_values(text), (page, raw_text)
        assert "<script>alert" not in text


def _without_values(text: str) -> str:
    import re

    return re.sub(r'value="[^"]*"|data-queue="[^"]*"', "", text)


def test_long_and_broken_things_are_shown_in_part(site: Site) -> None:
    task = put("failed", args="[" * 50_000, kwargs="not JSON", error="x" * 100_000, errors="broken\n")
    text = client().get(f"{FAILED}{task.pk}/change/").content.decode()
    assert "characters left out" in text and "not JSON" in text and len(text) < 100_000


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
    browser.post(f"{FAILED}{task.pk}/requeue/")
    site.sql("UPDATE snappea_task SET status = 'failed'")
    text = browser.get(f"{FAILED}{task.pk}/change/").content.decode()
    for words in ("an argument", "E: the first", "E: the second", f"task #{parent.pk}", "Requeued", "boss"):
        assert words in text
    assert '<span class="snappea-place">  File &quot;a.py&quot;, line 1, in f</span>' in text


def test_progress_is_a_bar(site: Site) -> None:
    task = put("running", progress_done=3, progress_total=4, progress_note="resizing")
    browser = client()
    for page in (PAGE_OF["running"], f"{PAGE_OF['running']}{task.pk}/change/", "/admin/snappea/dashboard/"):
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
        page = browser.get(f"{PAGE_OF[row.status]}{row.pk}/change/").content.decode()
        assert secret not in page and "not shown" in page
    for page in ("/admin/snappea/dashboard/", *PAGE_OF.values()):
        assert secret not in browser.get(page).content.decode()
    assert not found(browser, FAILED, q=secret)
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
    models: list[type[Model]] = [*LISTS.values()]
    for model in models:
        page = f"/admin/snappea/{model._meta.model_name}/"
        for field in ("args", "kwargs", "lane", "unique_key", "result", "errors", "error", "progress_note"):
            if field not in {column.name for column in model._meta.get_fields()}:
                continue
            for lookup in ("", "__contains", "__startswith", "__regex", "__isnull", "__gt"):
                response = looker.get(page, {field + lookup: "marker"})
                assert "x.y" not in response.content.decode(), (page, field, lookup)
        assert looker.get(page, {"q": "marker", "o": "-args.1"}).content.decode().count("x.y #") == 0
    for task in Task.objects.all():
        page = looker.get(f"{PAGE_OF[task.status]}{task.pk}/change/").content.decode()
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
    page = client().get(f"{PAGE_OF['failed']}{task.pk}/change/").content.decode()
    assert page.count("2026-01-01 21:00:00") == 4 and "nonsense" in page
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
    assert "a secret" not in client().get(f"{PAGE_OF['ready']}{row.pk}/change/").content.decode()


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
            for page in ("/admin/snappea/dashboard/", PAGE_OF["running"], PAGE_OF["ready"]):
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
    client().post(f"{FAILED}{task.pk}/requeue/")
    with transact(connect()) as db:
        assert db is raw(connect())
    assert Task.objects.get().status == "ready"
