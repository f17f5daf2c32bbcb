"""The frame of the console: tabs, the part that refreshes itself, and what viewers share."""

import re
import threading
import time
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.utils import timezone

import snappea
from snappea.admin.console import LIVE
from snappea.models import Status, Task
from snappea.monitoring import shared as sharing
from snappea.monitoring.shared import shared
from snappea.queue.database import connect, raw
from tests.admin.test_lists import note_running
from tests.playground.gated import two_late
from tests.playground.tasks import echo
from tests.web import user

OVERVIEW = "/admin/snappea/dashboard/"


def live(browser: Client, address: str = OVERVIEW, **headers: str) -> Any:
    """Ask for the live part as the script does."""
    return browser.get(address, headers={LIVE: "1", **headers})


def test_the_tabs_have_counts(browser: Client) -> None:
    for status in ("ready", "failed", "failed"):
        Task.objects.create(task_name="x", status=status, finished_at=timezone.now())
    text = re.sub(r"<[^>]+>|\s+", " ", live(browser).content.decode())
    assert re.search(r"Overview +Tasks +3 .*Failures +2 .*Schedules +0 .*Workers +0 / 0", text)


def test_the_script_gets_the_live_part_alone_and_once(browser: Client) -> None:
    first = live(browser)
    text = first.content.decode()
    assert text.lstrip().startswith("<nav") and "<html" not in text and "csrf" not in text.lower()
    assert live(browser, **{"If-None-Match": first["ETag"]}).status_code == 304
    Task.objects.create(task_name="x", status="failed", finished_at=timezone.now())
    second = live(browser, **{"If-None-Match": first["ETag"]})
    assert second.status_code == 200 and second["ETag"] != first["ETag"]
    assert "no-store" in second["Cache-Control"]


def test_the_page_contains_the_same_part(browser: Client) -> None:
    page = browser.get(OVERVIEW)
    assert live(browser).content.decode() in page.content.decode() and LIVE in page["Vary"]


def test_who_is_logged_out_gets_no_part(browser: Client) -> None:
    browser.logout()
    assert live(browser).status_code == 302
    browser.force_login(user("guest"))
    assert live(browser).status_code == 403


def test_paused_on_all_pages(browser: Client) -> None:
    assert 'data-refresh="2000"' in browser.get(OVERVIEW).content.decode()
    answer = browser.get(f"{OVERVIEW}?hours=6&refresh=0")
    assert answer.status_code == 302 and answer["Location"] == f"{OVERVIEW}?hours=6"
    for page in (OVERVIEW, "/admin/snappea/dashboard/workers/"):
        text = browser.get(page).content.decode()
        assert 'data-refresh="0"' in text and "http-equiv" not in text
    browser.get(f"{OVERVIEW}?refresh=1")
    assert 'http-equiv="refresh" content="10"' in browser.get(OVERVIEW).content.decode()


@pytest.fixture
def for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    sharing.forget()
    monkeypatch.setattr(sharing, "SECONDS", 60.0)


@pytest.mark.usefixtures("for_a_second")
def test_viewers_share_a_page(browser: Client) -> None:
    first = live(browser)
    Task.objects.create(task_name="x", status="failed", finished_at=timezone.now())
    assert live(browser)["ETag"] == first["ETag"]
    other = Client()
    other.force_login(user("other", "view"))
    assert b"sp-act" in first.content and b"sp-act" not in live(other).content  # by their permissions
    assert live(browser, f"{OVERVIEW}?hours=6")["ETag"] != first["ETag"]


@pytest.mark.usefixtures("for_a_second")
def test_an_action_is_seen_at_once(browser: Client) -> None:
    assert "paused" not in browser.get(OVERVIEW).content.decode()
    answer = browser.post(f"{OVERVIEW}pause/", {"queue": "default"}, follow=True)
    assert "is paused" in answer.content.decode()


@pytest.mark.usefixtures("for_a_second")
def test_one_builds_and_the_others_wait() -> None:
    built: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def build() -> int:
        begun.set()
        assert go_on.wait(60)
        built.append(1)
        return len(built)

    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(shared("x", build))) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert begun.wait(60) and not found
    go_on.set()
    for thread in threads:
        thread.join()
    assert (built, found) == ([1], [1] * 5)


def test_values_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of pages may contain anything: they must not fill the memory."""
    monkeypatch.setattr(sharing, "SECONDS", 0.001)
    for number in range(100):
        shared(("page", number), dict)
        time.sleep(0.002)
    assert len(sharing._entries) < 10


@pytest.mark.usefixtures("for_a_second")
def test_an_error_is_not_kept() -> None:
    with pytest.raises(ZeroDivisionError):
        shared("y", lambda: 1 / 0)
    assert shared("y", lambda: 2) == 2


#: The address of each page, and how many queries it needs at most.
PAGES = {
    "overview": (OVERVIEW, 12),
    "failures": ("/admin/snappea/dashboard/failures/", 12),
    "workers": ("/admin/snappea/dashboard/workers/", 12),
    "type": ("/admin/snappea/dashboard/type/?name=shop.charge", 12),
    "type with limits": (f"/admin/snappea/dashboard/type/?name={two_late.name}", 12),
    "schedules": ("/admin/snappea/schedule/", 12),
    **{
        f"list {q}": (f"/admin/snappea/task/?q={q}", 12)
        for q in ("", "args.order:77", "word", "log:word", *(f"state:{status}" for status in Status))
    },
    **{f"task {status}": (f"/admin/snappea/task/%d/change/?q=state:{status}", 12) for status in Status},
    "batches": ("/admin/snappea/task/batch/", 12),
    "batch": ("/admin/snappea/task/batch/1/", 12),
    "confirmation": ("/admin/snappea/task/bulk/requeue/", 12),
}


@pytest.mark.usefixtures("for_a_second")
@pytest.mark.parametrize("page", PAGES)
def test_a_page_needs_few_queries(browser: Client, page: str) -> None:
    """Those of the session and the user included, whatever the number of queues, priorities and rows."""
    rest: dict[str, Any] = {
        "task_name": two_late.name if "limits" in page else "shop.charge",
        "kwargs": {"order": 77},
        "log": '{"message": "word"}\n',
    }
    with snappea.batch(on_success=echo.s(1)), snappea.batch(on_complete=echo.s(2)):
        echo.delay(3)
    for number, status in enumerate([*Status, *Status, *Status]):
        failed = {
            "batch_id": 1 + number % 2,
            "finished_at": timezone.now(),
            "exception": "KeyError",
            "place": f"shop.py:{number}",
        }
        Task.objects.create(status=status, queue=f"q{number}", priority=number, **rest, **failed)
    note_running(*Task.objects.filter(status="running"))
    address, most = PAGES[page]
    if "%d" in address:
        address %= Task.objects.filter(status=page.split()[1]).latest("pk").pk
    browser.get("/admin/snappea/schedule/")  # a process looks at the tables once
    sharing.forget()
    asked: list[str] = []
    databases = [raw(connect()), connections["default"].connection]
    for database in databases:
        database.set_trace_callback(asked.append)
    try:
        answer = browser.post(address, {"q": "state:failed"}) if "bulk" in address else browser.get(address)
    finally:
        for database in databases:
            database.set_trace_callback(None)
    asked = [sql for sql in asked if not sql.lstrip().startswith(("PRAGMA", "BEGIN", "COMMIT"))]
    assert answer.status_code == 200 and 5 < len(asked) <= most, "\n".join(asked)
