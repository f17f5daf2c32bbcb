"""The page of a task function: what is known about one name."""

import re
from datetime import timedelta
from itertools import pairwise
from urllib.parse import quote

import pytest
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from snappea import limits, task
from snappea.admin import task_type
from snappea.models import Schedule, Task, Total
from snappea.monitoring import shared
from snappea.stats import Histogram, border
from tests.minutes import write_minute
from tests.playground.gated import two_late
from tests.playground.tasks import fail, wait_for
from tests.site import Made, Site, wait_until
from tests.web import user

HOSTILE = "</script><img src=x onerror=1>\"'&\u202e"


def page(browser: Client, name: str, more: str = "") -> str:
    shared.forget()
    response = browser.get(f"/admin/snappea/dashboard/type/?name={quote(name)}{more}")
    assert response.status_code == 200
    return re.sub(r"\s+", " ", response.content.decode())


def numbers(text: str) -> dict[str, str]:
    """Return the number of tasks in each state, as the page shows it."""
    return {
        state: re.sub("<[^>]*>", "", count)
        for state, count in re.findall(r'id="state-(\w+)"><a [^>]*><strong>(.*?)</strong>', text)
    }


def test_it_shows_limits_that_were_changed(site: Site, browser: Client) -> None:
    @task(name="made.by_key", max_concurrency=1, concurrency_key=str)
    def by_key(key: str) -> None: ...

    assert "changed at run time" not in page(browser, by_key.name)
    limits.set(by_key, max_concurrency=3)
    limits.set(by_key, key="<eu>", rate_limit="30/m")
    limits.set(two_late, max_concurrency=7)
    text = page(browser, by_key.name)
    assert '<code>max_concurrency</code></th><td dir="auto">3<' in text
    assert '<code>rate_limit</code> <bdi>&lt;eu&gt;</bdi></th><td dir="auto">30/m<' in text
    assert ">7</td>" not in text
    object.__setattr__(by_key.options, "sensitive", True)
    text = page(browser, by_key.name)
    assert (
        "<bdi>&lt;eu" not in text
        and "rate_limit" not in text
        and '<code>max_concurrency</code></th><td dir="auto">3<' in text
    )


@pytest.mark.on_both
def test_it_shows_what_is_known_of_a_name(site: Site, browser: Client) -> None:
    moment = timezone.now()
    wanted = {"failed": 3, "ready": 2, "scheduled": 1, "interrupted": 1, "cancelled": 4}
    for status, count in wanted.items():
        for number in range(count):
            Task.objects.create(
                task_name=fail.name,
                status=status,
                run_after=moment + timedelta(hours=1) if status == "scheduled" else None,
                finished_at=moment if status in ("failed", "interrupted", "cancelled") else None,
                exception="KeyError" if number else "OSError",
            )
            Task.objects.create(task_name="other", status=status, finished_at=moment)
    Total.objects.create(task_name=fail.name, done=12345, failed=3)
    Schedule.objects.create(
        name="each hour", task_name=fail.name, expression="0 * * * *", timezone="UTC", next_run=moment
    )
    ended = {"done": 90, "failed": 10, "run_times": {0: 90, 4: 10}}
    write_minute(5, {fail.name: ended, "other": {"done": 5}})
    text = page(browser, fail.name)
    assert numbers(text) == {
        "scheduled": "1",
        "ready": "2",
        "running": "0",
        "failed": "3",
        "interrupted": "1",
        "successful": "0",
        "cancelled": "4",
    }
    assert "In the last hour 90 were done and 10 failed." in text and "10 of 100 runs failed: 10 %." in text
    assert "So far 12,435 were done and 13 failed." in text and "each hour" in text
    assert text.count('class="sp-group"') == 2 and "OSError" in text
    assert "tests.playground.tasks, line" in text


def test_what_runs_is_shown(site: Site, browser: Client) -> None:
    site.foreman()
    wait_for.delay("x", str(site.directory / "never"))
    wait_until(lambda: numbers(page(browser, wait_for.name))["running"] == "1")
    assert 'id="run-1"' in page(browser, wait_for.name)
    assert 'id="run-1"' not in page(browser, fail.name)


def test_any_name_has_a_page(browser: Client) -> None:
    for name in ("no.such.task", HOSTILE, "(others)", "x" * 300, 'a"b\\ c', "😀"):
        Task.objects.create(task_name=name[:255], status="failed", finished_at=timezone.now())
        text = page(browser, name)
        assert (
            "knows no task function of this name" in text
            and "<img src" not in text
            and "\u202e" not in re.sub("<[^>]*>", "", text)
        )
        assert numbers(text)["failed"] == "1" and "Enqueue another" not in text
    response = browser.get("/admin/snappea/dashboard/type/")
    assert response.status_code == 302 and response["Location"] == "/admin/snappea/dashboard/"


def test_options_that_are_not_the_default_are_shown(browser: Client, made: Made) -> None:
    @task(name="tests.made.options", queue="mail", autoretry_for=(OSError, KeyError), max_concurrency=2)
    def options() -> None:
        """Send a letter.

        More.
        """

    text = page(browser, options.name)
    shown = dict(re.findall(r"<code>(\w+)</code></th><td[^>]*>(.*?)</td>", text))
    assert shown == {"queue": "mail", "autoretry_for": "OSError, KeyError", "max_concurrency": "2"}
    assert "Send a letter." in text and "More." not in text and f"{__name__}, line" in text


def test_to_look_at_a_function_does_not_run_it(browser: Client, made: Made) -> None:
    @task(name="tests.made.alarm")
    def alarm() -> None:
        runs.append(1)

    runs: list[int] = []
    assert "All options have their default values." in page(browser, alarm.name)
    assert not runs


def test_only_who_may_view_tasks_sees_it(site: Site) -> None:
    browser = Client()
    browser.force_login(user("staff", is_staff=True))
    assert browser.get("/admin/snappea/dashboard/type/?name=x").status_code == 403


def test_it_asks_little(browser: Client) -> None:
    page(browser, fail.name)
    with CaptureQueriesContext(connections["snappea"]) as asked:
        page(browser, fail.name)
    assert len(asked) <= 12, [query["sql"] for query in asked]


def test_the_tasks_are_counted_by_indexes(site: Site) -> None:
    text = task_type._COUNTS
    steps = [row[3] for row in site.sql(f"EXPLAIN QUERY PLAN {text}", *["x"] * text.count("?"))]
    for step in steps:
        assert "snappea_task" not in step or "INDEX snappea_" in step, step


times = st.dictionaries(st.integers(-20, 30), st.integers(1, 10_000), min_size=1)


@given(times)
def test_the_bars_of_a_histogram_have_round_borders_and_add_up(buckets: dict[int, int]) -> None:
    shown = list(task_type.bars(Histogram(buckets)))
    assert abs(sum(count for *_, count, _share in shown) - sum(buckets.values())) <= 1
    assert all(before[1] == after[0] for before, after in pairwise(shown))
    assert all(0 <= float(share) <= 1 for *_, share in shown) and any(float(row[3]) == 1 for row in shown)


@given(times, st.floats(1e-6, 1e5))
def test_below_is_the_inverse_of_the_percentile(buckets: dict[int, int], seconds: float) -> None:
    histogram = Histogram(buckets)
    total = sum(buckets.values())
    assert histogram.below(0) == 0 and histogram.below(border(max(buckets) + 1)) == total
    found = histogram.percentile(0.5)
    assert found is not None and histogram.below(found) == pytest.approx(total / 2)
