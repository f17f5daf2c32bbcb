"""The dashboard: its contents, wording and charts."""

import re
from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from snappea import stats
from snappea.admin import dashboard, queues
from snappea.admin.search import Search
from snappea.management import console
from snappea.models import Status, Task
from snappea.monitoring import formatting, shared
from snappea.queue import operations
from snappea.queue.database import connect, file_of
from snappea.queue.lock import holder
from tests.minutes import write_minute
from tests.playground import coroutines, isolated
from tests.playground.limited import swallow
from tests.playground.tasks import wait_for
from tests.site import Site, wait_until
from tests.web import user

DASHBOARD = "/admin/snappea/dashboard/"


def text_of(browser: Client, address: str = DASHBOARD) -> str:
    response = browser.get(address)
    assert response.status_code == 200
    return re.sub(r"\s+", " ", response.content.decode())


def test_it_works_with_nothing_in_it(browser: Client) -> None:
    text = text_of(browser)
    assert "No Foreman runs" in text and "No task is running." in text and text.count("<figure") == 4
    assert "No failed tasks." in text and 'data-state="no_foreman ' in text
    assert "No failed tasks." in text_of(browser, f"{DASHBOARD}failures/")
    assert "No Foreman runs" in text_of(browser, f"{DASHBOARD}workers/")


def test_all_is_well_when_a_foreman_works(site: Site, browser: Client) -> None:
    site.foreman(NUM_WORKERS=3)
    write_minute(1, {"x": {"done": 240}})
    text = text_of(browser)
    assert "All is well." in text and 'data-state=""' in text
    assert "0 of 3 threads busy" in text and "240 tasks/min" in text and text.count(">idle<") == 3


def test_each_problem_has_a_sentence_with_a_link(site: Site, browser: Client, settings: Any) -> None:
    settings.SNAPPEA = {**settings.SNAPPEA, "WARN_BACKLOG_SECONDS": 60}
    moment = timezone.now()
    Task.objects.create(task_name="x", enqueued_at=moment - timedelta(minutes=5))
    for hours in (0, 0, 2):
        Task.objects.create(task_name="x", status="failed", finished_at=moment - timedelta(hours=hours))
    operations.pause("mail")
    text = text_of(browser)
    assert 'data-state="no_foreman backlog paused failed mail "' in text
    assert "The oldest ready task has waited for 5 min" in text and "The limit is 1 min." in text
    assert "2 tasks failed in the last hour." in text and "/dashboard/failures/?sort=last" in text
    assert "Queue mail is paused; 0 tasks wait." in text and 'href="#queue-mail"' in text
    assert 'id="queue-mail"' in text


def test_it_shows_a_stuck_task_and_its_limit(site: Site, browser: Client) -> None:
    foreman = site.hasty_foreman(threads__STUCK_AFTER=0.2)
    swallow.delay("x", str(site.directory / "never"))
    wait_until(lambda: ">stuck<" in text_of(browser))
    assert "1 task is stuck beyond its time limit." in text_of(browser)
    text = text_of(browser, f"{DASHBOARD}workers/")
    assert f"Foreman {foreman.pid} on" in text and "1 stuck" in text and 'class="sp-is-stuck"' in text


def test_it_shows_progress_limits_and_arguments(site: Site, browser: Client, settings: Any) -> None:
    settings.SNAPPEA = {**settings.SNAPPEA, "SOFT_TIME_LIMIT": 120}
    site.foreman(SOFT_TIME_LIMIT=120, NUM_WORKERS=2)
    wait_for.delay("x", str(site.directory / "never"))
    wait_until(lambda: 'id="run-1"' in text_of(browser))
    assert " of 2 min</td>" in text_of(browser) and '<progress class="sp-bar" value="0.0' in text_of(browser)
    site.sql("UPDATE snappea_task SET progress_done = 3, progress_total = 4, progress_note = 'resizing'")
    for page in ("", "workers/"):
        text = text_of(browser, DASHBOARD + page)
        assert '<progress class="sp-bar" value="0.7500" max="1"' in text
        assert "3 of 4" in text and "resizing" in text and "key=&quot;x&quot;" in text
        assert "1 of 2 threads busy" in text and text.count(">idle<") == 1


def test_threads_the_event_loop_and_processes_are_counted_apart(site: Site, browser: Client) -> None:
    site.foreman(NUM_WORKERS=2)
    wait_for.delay("thread", str(site.directory / "never"))
    for number in range(3):
        coroutines.wait_for.delay(str(number), str(site.directory / "never"))
    isolated.know_async.delay(60)
    wait_until(lambda: 'id="run-5"' in text_of(browser) and 'id="run-4"' in text_of(browser))
    text = text_of(browser)
    assert "2 of 2 threads busy" in text and "3 coroutines on the event loop" in text and "1 process<" in text
    assert "2 tasks on 2 workers, 3 on the event loop" in "".join(console.status(stats.snapshot()))


def test_many_workers_are_on_a_page_of_their_own(site: Site, browser: Client) -> None:
    site.foreman(NUM_WORKERS=20)
    wait_until(lambda: text_of(browser).count(">idle<") == dashboard.SLOTS)
    assert "and 8 more" in text_of(browser)
    assert text_of(browser, f"{DASHBOARD}workers/").count(">idle<") == 20


@pytest.mark.parametrize("language", ["en", "de", "fr"])
def test_what_a_machine_reads_is_not_written_as_people_read_it(
    site: Site, browser: Client, settings: Any, language: str
) -> None:
    settings.USE_THOUSAND_SEPARATOR, settings.LANGUAGE_CODE = True, language
    site.foreman()
    for pk in (1234567, 7654321):
        Task.objects.create(
            pk=pk,
            task_name=wait_for.name,
            args=["x", str(site.directory / "never")],
            parent_id=9876543,
            progress_done=1234.5,
            progress_total=2345.5,
        )
    wait_until(lambda: 'id="run-7654321"' in text_of(browser))
    text = text_of(browser) + text_of(browser, f"{DASHBOARD}workers/")
    page = text_of(browser, "/admin/snappea/task/1234567/change/")
    shown = text_of(browser, "/admin/snappea/task/?q=state:running")
    for html in (text, page, shown):
        values = re.findall(r'(?:value|id|href|action|max|viewBox|data-[a-z]+)="([^"]*)"', html)
        assert not [value for value in values if re.search("\\d[,.\xa0\u202f]\\d{3}(?!\\d)", value)], values
        assert "1234567" in html
    address = "/admin/snappea/task/1234567/terminate/"
    assert text.count(f'formaction="{address}"') == 2 and "9876543" in page
    browser.post(address)
    wait_until(lambda: site.counts() == {"running": 1, "cancelled": 1})


def test_the_charts_show_the_hours_that_are_asked_for(browser: Client) -> None:
    write_minute(200, {"x": {"done": 1234, "failed": 5}})
    assert "1,234 were done" not in text_of(browser)
    assert "In the last 6 hours 1,234 were done and 5 failed." in text_of(browser, f"{DASHBOARD}?hours=6")
    assert "The last hour" in text_of(browser, f"{DASHBOARD}?hours=999999")


def test_it_can_be_told_not_to_renew_itself(browser: Client) -> None:
    assert 'http-equiv="refresh"' in text_of(browser) and 'data-refresh="2000"' in text_of(browser)
    assert browser.get(f"{DASHBOARD}?hours=6&refresh=0")["Location"] == f"{DASHBOARD}?hours=6"
    for page in ("", "failures/", "workers/"):
        still = text_of(browser, DASHBOARD + page)
        assert 'http-equiv="refresh"' not in still and 'data-refresh="0"' in still


def test_nothing_is_inline(browser: Client) -> None:
    for page in (
        DASHBOARD,
        f"{DASHBOARD}failures/",
        f"{DASHBOARD}workers/",
        "/admin/",
        "/admin/snappea/task/",
    ):
        text = text_of(browser, page)
        assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>\s*[^<\s]", text), page
        assert "<style" not in text and " style=" not in text and " onclick=" not in text


def failed(exception: str, number: int, **columns: Any) -> None:
    given = {"task_name": "shop.charge", "place": "a.py:1 in f", "error": f"Traceback\n{exception}: 'no'"}
    for _ in range(number):
        Task.objects.create(
            status="failed", exception=exception, finished_at=timezone.now(), **{**given, **columns}
        )


def test_failures_are_shown_in_groups_with_a_sample_and_a_search(browser: Client) -> None:
    for number in range(7):
        failed(f"Error{number}", number + 1)
    failed("Secret", 20, is_sensitive=True, error="Traceback\nSecret: hunter2")
    text = text_of(browser)
    assert re.findall(r'<h3 [^>]*><a href="[^"]*">(\w+)</a>', text) == [
        "Secret",
        *(f"Error{at}" for at in (6, 5, 4, 3)),
    ]
    assert "Error6: &#x27;no&#x27;" in text and "hunter2" not in text and "All groups" in text
    page = text_of(browser, f"{DASHBOARD}failures/")
    assert page.count('class="sp-group"') == 8 and "48 failed tasks" in page
    assert page.count('<svg class="sp-spark"') == 8 and 'd="M94 22v-22"' in page
    queries = [unescape(query) for query in re.findall(r'name="q" value="(.*?)"', page)]
    searched = Search(queries[1])
    assert searched.tasks().count() == 7 and searched.state == Status.FAILED
    assert all(f"q={quote(query, safe='')}" in page for query in queries)


@pytest.mark.parametrize("text", ['a "quoted" \\ one', "", "args.x:1 state:ready", "ü\u202e"])
def test_the_search_of_a_group_finds_just_its_tasks(browser: Client, text: str) -> None:
    failed(text, 3, place=text)
    failed("other", 1, place=text)
    page = text_of(browser, f"{DASHBOARD}failures/")
    query = unescape(re.findall(r'name="q" value="(.*?)"', page)[0])
    assert set(Search(query).tasks().values_list("exception", flat=True)) == {text}


def test_groups_are_sorted_by_number_or_by_the_last_failure(browser: Client) -> None:
    failed("Many", 3)
    Task.objects.update(finished_at=timezone.now() - timedelta(hours=3))
    failed("New", 1)
    for sort, first in (("", "Many"), ("?sort=last", "New")):
        text = text_of(browser, f"{DASHBOARD}failures/{sort}")
        assert re.findall(r'<h3 [^>]*><a href="[^"]*">(\w+)</a>', text)[0] == first


def test_those_who_may_only_view_see_no_buttons(site: Site) -> None:
    site.foreman()
    failed("KeyError", 1)
    browser = Client()
    browser.force_login(user("viewer", "view"))
    for page in ("", "failures/", "workers/"):
        assert 'form="sp-act"' not in text_of(browser, DASHBOARD + page)
    for act in ("pause", "resume"):
        assert browser.post(f"{DASHBOARD}{act}/", {"queue": "default"}).status_code == 403
    assert not operations.paused()


def test_a_queue_tells_when_it_is_empty_at_this_rate(
    site: Site, browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "steady_clock", iter((100.0, 110.0, 111.0)).__next__)
    for _ in range(30):
        Task.objects.create(task_name="x")
    assert 'data-label="Change per minute">—<' in text_of(browser), "it has looked but once"
    Task.objects.filter(pk__gt=20).delete()
    text = text_of(browser)
    assert 'data-label="Change per minute">-60<' in text and 'data-label="Empty in">20 s<' in text
    for _ in range(21):
        Task.objects.create(task_name="x")
    text = text_of(browser)
    assert 'data-label="Change per minute">+60<' in text and 'data-label="Empty in">—<' in text


def test_all_viewers_share_what_one_has_computed(
    site: Site, browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "SECONDS", 3600.0)
    shared.forget()
    other = Client()
    other.force_login(user("second", is_superuser=True))
    text_of(browser)
    Task.objects.create(task_name="x")
    for viewer in (browser, other):
        assert '<span class="sp-num">0</span> Pending' in text_of(viewer)
    shared.forget()
    assert '<span class="sp-num">1</span> Pending' in text_of(other)
    browser.post(f"{DASHBOARD}pause/", {"queue": "mail"})
    assert "Queue mail is paused" in text_of(browser), "it shows at once what the viewer did"
    shared.forget()


# the lock tells of the Foreman


def test_the_lock_tells_who_is_at_work(site: Site) -> None:
    connect()
    file = file_of(connect())
    assert file and holder(file) is None
    foreman = site.foreman(NUM_WORKERS=5)
    found = wait_until(lambda: (seen := holder(file)) and seen.workers and seen)
    assert (found.pid, found.workers, found.stuck) == (foreman.pid, 5, [])
    assert abs(timezone.now() - found.since) < timedelta(minutes=5)
    foreman.kill()
    assert holder(file) is None


def test_who_looks_at_the_lock_keeps_no_foreman_from_starting(site: Site) -> None:
    program = site.program(
        "from snappea.queue.database import connect, file_of\n"
        "from snappea.queue.lock import holder\n"
        "file = file_of(connect())\n"
        "print('looking', flush=True)\n"
        "while True:\n"
        "    holder(file)\n"
    )
    program.wait_for_output("looking")
    for _ in range(3):
        site.foreman().kill()


# words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "—"),
        (0, "0 ms"),
        (0.0004, "0.4 ms"),
        (0.012, "12 ms"),
        (0.9999, "1.0 s"),
        (3.44, "3.4 s"),
        (59.97, "1 min"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (7325, "2 h 2 min"),
        (90061, "1 d 1 h"),
        (4e8, "4,629 d 15 h"),
    ],
)
def test_spans_of_time(seconds: float | None, words: str) -> None:
    assert formatting.duration(seconds) == words


@given(st.floats(0, 1e12))
def test_every_span_of_time_has_words(seconds: float) -> None:
    assert re.fullmatch(r"[\d.,e-]+ (ms|s|min|h|d)( \d+ (s|min|h))?", formatting.duration(seconds))


@given(st.text())
def test_a_plain_text_has_no_character_that_is_not_seen(text: str) -> None:
    shown = formatting.plain(text)
    assert all(character in "\n\t" or character.isprintable() or character.isspace() for character in shown)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b-\u200f\0\x1b]", shown)


def test_letters_of_all_languages_stay_what_they_are() -> None:
    assert formatting.plain("Grüße, 世界 👍\n") == "Grüße, 世界 👍\n"


def test_a_queue_is_paused_once(browser: Client) -> None:
    for _ in range(2):
        browser.post(f"{DASHBOARD}pause/", {"queue": "default"})
    assert list(operations.paused()) == ["default"]
