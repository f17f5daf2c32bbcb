"""The dashboard: its contents, wording and charts."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from snappea import stats
from snappea.management import console
from snappea.models import Task
from snappea.monitoring import formatting, inspect
from snappea.queue import operations
from snappea.queue.database import connect, file_of
from snappea.queue.lock import holder
from tests.minutes import write_minute
from tests.playground import coroutines
from tests.playground.limited import swallow
from tests.playground.tasks import wait_for
from tests.site import Site, wait_until
from tests.web import user

DASHBOARD = "/admin/snappea/dashboard/"


@pytest.fixture
def browser(site: Site) -> Client:
    browser = Client()
    browser.force_login(user(is_superuser=True))
    return browser


def text_of(browser: Client, address: str = DASHBOARD) -> str:
    response = browser.get(address)
    assert response.status_code == 200
    return re.sub(r"\s+", " ", response.content.decode())


def test_it_works_with_nothing_in_it(browser: Client) -> None:
    text = text_of(browser)
    assert "No Foreman runs" in text and "No task is running." in text and text.count("<figure") == 4


def test_it_shows_a_stuck_task_and_its_limit(site: Site, browser: Client) -> None:
    foreman = site.hasty_foreman(threads__STUCK_AFTER=0.2)
    swallow.delay("x", str(site.directory / "never"))
    alive = f"pid {foreman.pid} on"
    wait_until(lambda: ">stuck<" in text_of(browser))
    text = text_of(browser)
    assert alive in text and "1 stuck" in text and 'class="snappea-stuck"' in text


def test_it_shows_progress_and_limits(site: Site, browser: Client) -> None:
    site.foreman(SOFT_TIME_LIMIT=120, NUM_WORKERS=2)
    wait_for.delay("x", str(site.directory / "never"))
    wait_until(lambda: 'id="run-1"' in text_of(browser))
    site.sql("UPDATE snappea_task SET progress_done = 3, progress_total = 4, progress_note = 'resizing'")
    text = text_of(browser)
    assert '<progress value="0.7500" max="1"' in text and "3 of 4" in text and "resizing" in text
    assert "1 of 2 threads busy" in text


def test_threads_and_the_event_loop_are_counted_apart(site: Site, browser: Client) -> None:
    site.foreman(NUM_WORKERS=1)
    wait_for.delay("thread", str(site.directory / "never"))
    for number in range(3):
        coroutines.wait_for.delay(str(number), str(site.directory / "never"))
    wait_until(lambda: 'id="run-4"' in (text_of(browser)))
    text = text_of(browser)
    assert "1 of 1 threads busy" in text and "3 on the event loop" in text
    assert "1 tasks on 1 workers, 3 on the event loop" in "".join(console.status(stats.snapshot()))


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
    text = text_of(browser)
    page = text_of(browser, "/admin/snappea/activetask/1234567/change/")
    shown = text_of(browser, "/admin/snappea/activetask/")
    for html in (text, page, shown):
        values = re.findall(r'(?:value|id|href|action|max|viewBox|data-[a-z]+)="([^"]*)"', html)
        assert not [value for value in values if re.search("\\d[,.\xa0\u202f]\\d{3}(?!\\d)", value)], values
        assert "1234567" in html
    assert 'name="task" value="1234567"' in text and "/9876543/change/" in page
    browser.post(f"{DASHBOARD}terminate/", {"hours": "2", "task": "1234567"})
    wait_until(lambda: site.counts() == {"running": 1, "cancelled": 1})


def test_the_charts_show_the_hours_that_are_asked_for(browser: Client) -> None:
    write_minute(200, {"x": {"done": 1234, "failed": 5}})
    assert "1,234 were done" not in text_of(browser)
    assert "In the last 6 hours 1,234 were done and 5 failed." in text_of(browser, f"{DASHBOARD}?hours=6")
    assert "The last 1 hours" in text_of(browser, f"{DASHBOARD}?hours=999999")


def test_it_can_be_told_not_to_renew_itself(browser: Client) -> None:
    assert 'http-equiv="refresh"' in text_of(browser) and 'data-refresh="2000"' in text_of(browser)
    still = text_of(browser, f"{DASHBOARD}?refresh=0")
    assert 'http-equiv="refresh"' not in still and 'data-refresh=""' in still


def test_nothing_is_inline(browser: Client) -> None:
    for page in (DASHBOARD, "/admin/", "/admin/snappea/failedtask/"):
        text = text_of(browser, page)
        assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>\s*[^<\s]", text), page
        assert "<style" not in text and " style=" not in text and " onclick=" not in text


def test_what_failed_alike_is_requeued_together(site: Site, browser: Client) -> None:
    for number in range(5):
        kind = {"exception": "OSError" if number % 2 else "KeyError", "place": "a.py:1 in f"}
        Task.objects.create(task_name="x", status="failed", finished_at=timezone.now(), **kind)
    browser.post(f"{DASHBOARD}requeue/", {"exception": "KeyError", "place": "a.py:1 in f", "task_name": "x"})
    assert set(Task.objects.filter(status="ready").values_list("exception", flat=True)) == {"KeyError"}
    assert site.counts() == {"ready": 3, "failed": 2}


def test_the_failures_are_grouped_by_an_index(site: Site) -> None:
    plan = [row[3] for row in site.sql(f"EXPLAIN QUERY PLAN {inspect._FAILURES}")]
    assert plan[0] == "SCAN snappea_task USING INDEX snappea_failures"


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


@given(st.text())
def test_a_traceback_is_shown_line_by_line(text: str) -> None:
    lines = formatting.traceback_lines(text)
    assert "\n".join(line.text for line in lines) == "\n".join(
        formatting.cut(formatting.plain(text)).splitlines()
    )


def test_a_queue_is_paused_once(browser: Client) -> None:
    for _ in range(2):
        browser.post(f"{DASHBOARD}pause/", {"queue": "default"})
    assert list(operations.paused()) == ["default"]
