"""Actions on many tasks: the confirmation, and what happens in the background."""

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from snappea.admin import bulk
from snappea.models import Task
from snappea.queue import operations
from tests.admin.forms import press
from tests.playground.tasks import fail, record, wait_for
from tests.site import Process, Site, wait_until
from tests.web import user

HOSTILE = "<script>alert(1)</script></pre>\u202e'\"&"


def put(number: int, status: str = "failed", function: Any = record, **columns: Any) -> None:
    """Insert tasks that ended a minute ago."""
    ago = timezone.now() - timedelta(minutes=1)
    columns = {"enqueued_at": ago, "finished_at": ago, "status": status} | columns
    Task.objects.bulk_create(
        Task(task_name=function.name, args=f"[{key}]", **columns) for key in range(number)
    )


def ask(browser: Client, verb: str, **chosen: Any) -> Any:
    """Return the page that asks for a confirmation."""
    return browser.post(f"/admin/snappea/task/bulk/{verb}/", chosen, follow=True)


def text_of(response: Any) -> str:
    html = response.content.decode().partition('id="content"')[2]
    return " ".join(re.sub("<[^>]*>", " ", html).split())


def messages_of(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def foreman(site: Site, **settings: Any) -> Process:
    """Start a Foreman of a project with the admin."""
    site.variables["SNAPPEA_TEST_ADMIN"] = "1"
    return site.foreman(**settings)


def statuses(**columns: Any) -> dict[str, int]:
    """Return how many tasks are in each state, but for the background task."""
    found = Task.objects.exclude(task_name=bulk.apply.name).filter(**columns).values_list("status", flat=True)
    return {status: list(found).count(status) for status in set(found)}


def in_background() -> Task:
    return Task.objects.get(task_name=bulk.apply.name)


def result() -> Any:
    return json.loads(in_background().result or "null")


def is_done() -> bool:
    return in_background().status == "successful"


# the confirmation


def test_it_shows_what_would_happen(browser: Client) -> None:
    put(5, exception="KeyError")
    put(3, exception="OSError")
    page = ask(browser, "requeue", q='state:failed exception:"KeyError"')
    text = text_of(page)
    assert "5 tasks" in text and "state:failed exception:" in text and "#1 key" in text
    assert text.count(f"{record.name} #") == 3 and "Type " not in text and "No Foreman runs. The" not in text
    assert statuses() == {"failed": 8} and not LogEntry.objects.exists()


def test_a_few_are_changed_at_once_without_a_foreman(browser: Client) -> None:
    put(bulk.FEW)
    page = ask(browser, "requeue", q="state:failed")
    assert messages_of(press(browser, page, "sp-confirm")) == ["Requeued: 100 tasks."]
    assert statuses() == {"ready": 100}
    assert LogEntry.objects.count() == 100


def test_selected_tasks(browser: Client) -> None:
    put(4)
    put(1, "ready")
    page = ask(browser, "delete", ids=["1", "2", "5", "999", "x", "9" * 30], q="words")
    assert "2 selected tasks are in other states, or gone" in text_of(page)
    response = press(browser, page, "sp-confirm")
    assert messages_of(response) == [
        "Deleted: 2 tasks. 2 skipped: 1 Pending, 1 changed or gone in the meantime."
    ]
    assert sorted(Task.objects.values_list("pk", flat=True)) == [3, 4, 5]


def test_nothing_to_do_is_no_question(browser: Client) -> None:
    put(1, "ready")
    assert messages_of(ask(browser, "requeue", ids=["1"])) == ["Requeued: 0 tasks. 1 skipped: 1 Pending."]
    assert messages_of(ask(browser, "requeue", q="state:failed")) == ["Requeued: 0 tasks."]


def test_numbers_that_are_none_choose_no_task(browser: Client) -> None:
    put(2)
    for address, chosen in (("bulk/delete/", {"ids": ["x", ""], "q": ""}), (f"{'9' * 40}/delete/", {})):
        response = browser.post(f"/admin/snappea/task/{address}", {**chosen, "list": "1"}, follow=True)
        assert messages_of(response) == ["Deleted: 0 tasks."]
    response = ask(browser, "delete", q="", list="1")
    assert messages_of(response) == ["Select tasks, or all that match."] and statuses() == {"failed": 2}
    assert "2 tasks" in text_of(ask(browser, "delete", q="", list="1", all="1", ids=["1"]))


def test_one_task_is_changed_without_a_question_unless_it_is_deleted(browser: Client) -> None:
    put(1)
    response = browser.post("/admin/snappea/task/1/requeue/", {"q": "x"}, follow=True)
    assert messages_of(response) == ["Requeued: 1 task."] and statuses() == {"ready": 1}
    assert response.redirect_chain[-1][0] == "/admin/snappea/task/1/change/?q=x"
    browser.post("/admin/snappea/task/1/cancel/")
    put(1)
    page = browser.post("/admin/snappea/task/2/delete/", {"q": "x"})
    assert statuses() == {"failed": 1}
    response = press(browser, page, "sp-confirm")
    assert response.redirect_chain[-1][0] == "/admin/snappea/task/?q=x" and not statuses()


@pytest.mark.parametrize("delay", ["", "x", "-1", "nan", "inf", "1e99"])
def test_a_delay_is_asked_for_and_checked(browser: Client, delay: str) -> None:
    put(2)
    page = ask(browser, "postpone", q="state:failed")
    again = press(browser, page, "sp-confirm", delay=delay)
    assert "Enter a delay" in messages_of(again)[0] and statuses() == {"failed": 2}
    response = press(browser, page, "sp-confirm", delay="90")
    assert messages_of(response)[0].startswith("Requeued with a delay of ")
    assert statuses() == {"scheduled": 2}


@pytest.mark.parametrize("typed", ["", "1", "1000", "1,002", "٣", "all", "9" * 5000])
def test_the_number_has_to_be_typed(browser: Client, typed: str) -> None:
    put(1001)
    page = ask(browser, "delete", q="state:failed")
    assert "Type 1,001 to confirm" in text_of(page)
    again = press(browser, page, "sp-confirm", typed=typed)
    assert messages_of(again) == ["Type the number of tasks to confirm."] and statuses() == {"failed": 1001}
    press(browser, again, "sp-confirm", typed="1,001")
    assert in_background().status == "ready"


def test_a_confirmation_says_what_it_confirms(browser: Client) -> None:
    """A POST that was not made by the page changes nothing."""
    put(150)
    ask(browser, "delete", q="state:failed", confirmed="1")
    ask(browser, "delete", q="state:failed", confirmed="1", shown="1500")
    assert statuses() == {"failed": 150} and Task.objects.count() == 150


def test_what_comes_later_is_left_alone(browser: Client) -> None:
    put(3)
    page = ask(browser, "requeue", q="state:failed")
    put(2, enqueued_at=timezone.now(), finished_at=timezone.now())
    put(1, finished_at=timezone.now() + timedelta(seconds=1))
    press(browser, page, "sp-confirm")
    assert statuses() == {"ready": 3, "failed": 3}


def test_an_age_counts_from_when_the_page_was_shown(site: Site, browser: Client) -> None:
    hour = timezone.now() - timedelta(hours=1)
    put(110, enqueued_at=hour - timedelta(minutes=1), finished_at=hour)
    put(110, enqueued_at=hour + timedelta(seconds=1), finished_at=hour)
    page = ask(browser, "requeue", q="state:failed age:>1h")
    assert "110 tasks" in text_of(page)
    wait_until(lambda: timezone.now() > hour + timedelta(hours=1, seconds=1))
    press(browser, page, "sp-confirm")
    operations.pause("work")
    foreman(site)
    wait_until(is_done)
    assert result()["changed"] == 110


def test_more_than_it_counts(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MOST_COUNTED", 1200)
    put(1300)
    page = ask(browser, "requeue", q="state:failed")
    assert "More than 1,200 tasks" in text_of(page) and "Type 1,200 to confirm" in text_of(page)
    press(browser, page, "sp-confirm", typed="1200")
    assert in_background().args


@pytest.mark.parametrize(
    "q", [f"state:failed queue:{HOSTILE!r}", "unknown:x", 'state:"', "#" * 500, "state:failed \0", "\u202e"]
)
def test_hostile_text(browser: Client, q: str) -> None:
    put(2, queue=HOSTILE)
    response = ask(browser, "requeue", q=q)
    html = response.content.decode()
    assert response.status_code in (200, 400) and "<script>alert" not in html
    assert "\u202e" not in re.sub(r'value="[^"]*"', "", html)


def test_who_may_do_it(browser: Client) -> None:
    put(1)
    for name, permissions, verbs in (
        ("viewer", ("view",), ()),
        ("changer", ("change",), ("requeue", "postpone", "cancel", "terminate")),
        ("deleter", ("view", "delete"), ("delete",)),
        ("blind", ("delete",), ()),
    ):
        other = Client()
        other.force_login(user(name, *permissions, is_staff=True))
        for verb in ("requeue", "postpone", "cancel", "terminate", "delete", "nonsense"):
            for more in ({}, {"confirmed": "1", "shown": "1"}):
                response = other.post(f"/admin/snappea/task/bulk/{verb}/", {"ids": "7", **more})
                assert response.status_code == (302 if verb in verbs else 403), (name, verb)
            assert (other.post(f"/admin/snappea/task/7/{verb}/").status_code == 403) == (verb not in verbs)
    assert browser.get("/admin/snappea/task/bulk/requeue/").status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(user("strict", is_superuser=True))
    assert strict.post("/admin/snappea/task/bulk/requeue/", {"ids": "1"}).status_code == 403
    assert Client().post("/admin/snappea/task/bulk/requeue/", {"ids": "1"}).status_code == 302  # log in
    assert statuses() == {"failed": 1}


def test_the_background_task_is_not_enqueued_by_hand(site: Site) -> None:
    """Its arguments name what is allowed, and the user in the admin's log."""
    browser = Client()
    browser.force_login(user("changer", "change", is_staff=True))
    address = f"/admin/snappea/task/enqueue/?name={bulk.apply.name}"
    call = {"verb": '"delete"', "ids": "[1]", "q": '""', "at": '""', "delay": "null", "user": '"1"'}
    for response in (browser.get(address), browser.post(address, call)):
        assert response.status_code == 302
    assert not Task.objects.exists()


def test_an_action_that_runs_as_a_task_is_not_requeued(browser: Client) -> None:
    """It has the permissions of the user that started it."""
    put(1, "interrupted", bulk.apply)
    put(1, "interrupted")
    own, other = Task.objects.order_by("pk")
    changer = Client()
    changer.force_login(user("changer", "change", is_staff=True))
    for chosen in ({"ids": [str(own.pk)]}, {"q": "state:interrupted"}):
        for verb in ("requeue", "postpone"):
            sent = {**chosen, "confirmed": "1", "shown": "2", "delay": "5"}
            changer.post(f"/admin/snappea/task/bulk/{verb}/", sent)
            changer.post(f"/admin/snappea/task/{own.pk}/{verb}/", {"delay": "5"})
    for row, has_button in ((own, False), (other, True)):
        row.refresh_from_db()
        assert (row.status == "interrupted") != has_button
        Task.objects.filter(pk=row.pk).update(status="interrupted")
        page = browser.get(f"/admin/snappea/task/{row.pk}/change/").content.decode()
        assert (f'id="requeue-{row.pk}"' in page) == has_button


# in the background


@pytest.mark.on_both
def test_many_are_changed_in_the_background(site: Site, browser: Client) -> None:
    put(3000, queue="work")
    operations.pause("work")
    page = ask(browser, "requeue", q="state:failed")
    assert "No Foreman runs. The action waits" in text_of(page)
    response = press(browser, page, "sp-confirm", typed="3000")
    started = in_background()
    assert response.redirect_chain[-1][0] == f"/admin/snappea/task/{started.pk}/change/"
    foreman(site)
    wait_until(is_done)
    done = in_background()
    assert result() == {"changed": 3000, "skipped": {}} and statuses() == {"ready": 3000}
    assert (done.progress_done, done.progress_total) == (3000, 3000)
    begin, end = LogEntry.objects.order_by("pk")
    assert begin.user.username == end.user.username == "boss"
    assert begin.object_id == end.object_id == str(started.pk)
    assert (begin.change_message, begin.object_repr) == ("Requeue: started", "state:failed")
    assert (end.change_message, end.object_repr) == ("Requeued", "3,000 tasks: state:failed")
    operations.resume("work")
    wait_until(lambda: not statuses())
    assert set(site.ledger.keys("start").values()) == {1} and len(site.ledger.keys("start")) == 3000


def test_a_foreman_that_is_killed_in_the_middle(site: Site, browser: Client) -> None:
    """Each task is requeued once, also if it failed again before the action was repeated."""
    count = 4000
    put(count, function=fail, queue="work")
    press(
        browser, ask(browser, "requeue", q=f"state:failed task:{fail.name}"), "sp-confirm", typed=str(count)
    )
    first = foreman(site, NUM_WORKERS=2)
    wait_until(lambda: site.ledger.keys("start"))
    first.kill()
    assert in_background().status == "running", "it was killed too late"
    foreman(site, NUM_WORKERS=2)
    wait_until(is_done)
    site.wait_until_empty()
    starts = site.ledger.keys("start")
    assert set(starts.values()) == {1} and count - 2 <= len(starts) <= count
    assert sum(statuses(exception="").values()) <= 2  # those that ran when it was killed
    assert in_background().interruptions == 1


def test_other_processes_enqueue_meanwhile(site: Site, browser: Client) -> None:
    """The write lock is released between batches."""
    put(6000)
    operations.pause("default")
    press(browser, ask(browser, "delete", q="state:failed"), "sp-confirm", typed="6000")
    assert in_background().queue == "snappea"  # the queue of tasks is paused
    foreman(site)
    wait_until(lambda: in_background().status == "running")
    left = []
    while in_background().status == "running":
        record.delay("x")
        left.append(Task.objects.filter(status="failed").count())
    assert len({*left}) > 3 and left == sorted(left, reverse=True)
    assert Task.objects.filter(status="ready").count() == len(left)


def test_a_double_click_starts_it_once(site: Site, browser: Client) -> None:
    put(200, function=fail)
    page = ask(browser, "requeue", q="state:failed")
    first, second = (press(browser, page, "sp-confirm") for _ in range(2))
    assert first.redirect_chain == second.redirect_chain
    foreman(site)
    wait_until(is_done)
    site.wait_until_empty()
    press(browser, page, "sp-confirm")  # from the browser's history, after the tasks have failed again
    wait_until(lambda: Task.objects.filter(task_name=bulk.apply.name, status="successful").count() in (1, 2))
    site.wait_until_empty()
    assert set(site.ledger.keys("start").values()) == {1}


def test_what_changes_before_it_runs_is_skipped(site: Site, browser: Client) -> None:
    put(150, "scheduled", finished_at=None, run_after=timezone.now() + timedelta(hours=1))
    put(20, "failed")
    page = ask(browser, "cancel", ids=[str(pk) for pk in range(1, 171)])
    press(browser, page, "sp-confirm")
    Task.objects.filter(pk__in=[50, 51]).delete()
    foreman(site)
    wait_until(is_done)
    assert result() == {"changed": 148, "skipped": {"failed": 20, "changed": 2}}


def test_it_can_be_terminated(site: Site, browser: Client) -> None:
    put(8000)
    press(browser, ask(browser, "delete", q="state:failed"), "sp-confirm", typed="8000")
    foreman(site)
    wait_until(lambda: Task.objects.filter(status="failed").count() < 8000)
    browser.post(f"/admin/snappea/task/{in_background().pk}/terminate/")
    wait_until(lambda: in_background().status == "cancelled")
    left = Task.objects.filter(status="failed").count()
    assert 0 < left < 8000
    entry = LogEntry.objects.filter(change_message="Deleted").get()
    assert entry.object_repr == f"{8000 - left:,} tasks: state:failed"


def test_all_running_tasks_are_terminated_though_no_worker_is_free(site: Site, browser: Client) -> None:
    foreman(site, NUM_WORKERS=2)
    for key in range(2):
        wait_for.delay(key, str(site.directory / "never"))
    wait_until(lambda: len(site.ledger.keys("start")) == 2)
    response = press(browser, ask(browser, "terminate", q="state:running"), "sp-confirm")
    assert messages_of(response) == ["Asked to end: 2 tasks."]
    wait_until(lambda: statuses() == {"cancelled": 2})


# other engines


def test_without_a_queue(site: Site, browser: Client, settings: Any) -> None:
    settings.SNAPPEA = {**site.settings, "TASK_ALWAYS_EAGER": True}
    put(150)
    response = press(browser, ask(browser, "requeue", q="state:failed"), "sp-confirm")
    assert messages_of(response) == ["Requeued: 150 tasks."] and statuses() == {"ready": 150}


def test_calls_that_tests_collect(site: Site, browser: Client, settings: Any) -> None:
    settings.SNAPPEA = {**site.settings, "IN_TESTS": "collect"}
    put(150)
    response = press(browser, ask(browser, "requeue", q="state:failed"), "sp-confirm")
    assert response.status_code == 200 and statuses() == {"failed": 150}


# from the pages, as a browser sends it


@pytest.mark.parametrize("language", ["en", "de", "ar"])
def test_numbers_in_forms_are_those_of_machines(
    site: Site, browser: Client, settings: Any, language: str
) -> None:
    """Each button of each page works where numbers are written as "1,234" or "1.234"."""
    settings.USE_THOUSAND_SEPARATOR, settings.LANGUAGE_CODE = True, language
    first = 1_234_567
    put(3)
    for pk in range(3):
        Task.objects.filter(pk=pk + 1).update(id=first + pk)
    running = Task.objects.create(
        pk=7_654_321, task_name=wait_for.name, args=["x", str(site.directory / "never")]
    )
    foreman(site)
    wait_until(lambda: site.ledger.keys("start"))
    page = browser.get("/admin/snappea/task/?q=state:failed")
    asked = press(browser, page, "bulk-requeue", ids=[str(first), str(first + 1)])
    operations.pause("default")
    press(browser, asked, "sp-confirm")
    assert statuses() == {"ready": 2, "failed": 1, "running": 1}
    press(browser, browser.get(f"/admin/snappea/task/{first}/change/"), f"cancel-{first}")
    asked = press(browser, browser.get("/admin/snappea/task/?q=state:ready"), "bulk-cancel", all="1")
    press(browser, asked, "sp-confirm")
    assert statuses() == {"failed": 1, "running": 1}
    page = browser.get(f"/admin/snappea/task/{first + 2}/change/")
    press(browser, page, f"postpone-{first + 2}", delay="3600")
    assert statuses() == {"scheduled": 1, "running": 1}
    press(browser, browser.get(f"/admin/snappea/task/{running.pk}/change/"), f"terminate-{running.pk}")
    wait_until(lambda: statuses() == {"scheduled": 1, "cancelled": 1})
