"""The admin and the dashboard in a real browser: Chromium. Screenshots are in tests/screenshots/."""

import json
import random
import re
from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import pytest
from django.utils import timezone
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from snappea.models import Task
from snappea.queue import operations
from tests.admin.chromium import Browser, chromium
from tests.minutes import write_minute
from tests.playground.lifecycle import loop
from tests.playground.tasks import fail, nap, record, wait_for
from tests.site import Site, wait_until
from tests.web import served, user

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.needs("chromedriver"), pytest.mark.long]


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    with chromium() as driver:
        yield driver


@pytest.fixture
def browser(site: Site, driver: webdriver.Chrome) -> Iterator[Browser]:
    user(is_superuser=True)
    with served() as address:
        browser = Browser(address, driver)
        browser.look_like()
        yield browser
        complaints = browser.complaints()
        driver.delete_all_cookies()
        driver.get("about:blank")  # so that it asks for nothing more
    assert not complaints


def test_a_failing_task_appears_is_requeued_and_moves(site: Site, browser: Browser) -> None:
    """Without a reload by hand."""
    site.foreman()
    browser.log_in()
    browser.wait_for_text("All is well.")
    fail.delay("x")
    browser.wait_for_text("ValueError")
    wait_until(lambda: browser.text_of("#tile-failed").split() == ["1", "Failed"])
    browser.click(".sp-group a")
    browser.click("#list-rows th a")
    browser.wait_for_text("no luck with x")
    browser.shoot("failed-task")
    browser.driver.find_element(By.XPATH, "//button[.='Requeue']").click()
    browser.wait_for_text("Requeued: 1 task.")
    wait_until(lambda: site.ledger.count("start", "x") == 2)
    browser.open("/admin/snappea/failedtask/")
    browser.wait_for_text("1 task")


def test_a_queue_is_paused_and_resumed(site: Site, browser: Browser) -> None:
    site.foreman()
    browser.log_in()
    browser.click("[data-queue='default']")
    browser.wait_for_text("Queue default was paused.")
    record.delay("x")
    wait_until(lambda: browser.text_of("#tile-ready").split() == ["1", "Pending"])
    assert "paused" in browser.text_of("#queues") and site.ledger.count("start", "x") == 0
    browser.click("[data-queue='default']")
    browser.wait_for_text("Queue default was resumed.")
    wait_until(lambda: site.ledger.count("end", "x"))


def test_a_running_task_is_terminated(site: Site, browser: Browser) -> None:
    site.foreman()
    loop.delay("x")
    wait_until(lambda: site.ledger.count("start", "x"))
    browser.log_in()
    browser.click("#running button")
    browser.wait_for_text("Asked to end: 1 task.")
    browser.open("/admin/snappea/dashboard/")
    wait_until(lambda: browser.text_of("#tile-cancelled").split() == ["1", "Cancelled"])
    assert site.counts() == {"cancelled": 1}


def test_the_restart_leaves_alone_what_has_not_changed(site: Site, browser: Browser) -> None:
    """No flicker, and the focus is kept, even while rows before it come and go."""
    go_on = site.directory / "go on"
    site.foreman()
    for key in ("a", "b"):
        wait_for.delay(key, str(go_on))
    wait_until(lambda: site.counts() == {"running": 2})
    browser.log_in()
    wait_until(lambda: len(browser.all("#running button")) == 2)
    chart = "document.querySelector('#chart-ended')"
    browser.driver.execute_script(
        f"window.kept = {chart}; arguments[0].focus()", browser.all("#running button")[1]
    )
    focused = browser.driver.switch_to.active_element.get_attribute("id")
    fail.delay("x")
    browser.wait_for_text("ValueError")
    assert browser.driver.switch_to.active_element.get_attribute("id") == focused
    assert browser.driver.execute_script(f"return window.kept === {chart}")
    go_on.touch()
    wait_until(lambda: not browser.all("#running button"))


def test_by_the_keyboard_alone(site: Site, browser: Browser) -> None:
    """A queue is paused, and a task requeued, without a mouse."""
    task = Task.objects.create(task_name=record.name, args=["x"], status="failed", finished_at=timezone.now())
    browser.log_in()
    browser.open("/admin/snappea/dashboard/?refresh=0")
    browser.tab_to(lambda element: element.get_attribute("data-queue") == "default")
    browser.press(Keys.ENTER)
    browser.wait_for_text("Queue default was paused.")
    browser.open(f"/admin/snappea/failedtask/{task.pk}/change/")
    browser.tab_to(lambda element: element.text == "Requeue")
    browser.press(Keys.SPACE)
    browser.wait_for_text("Requeued: 1 task.")
    assert site.counts() == {"ready": 1}


def test_without_javascript_the_page_renews_itself(site: Site, browser: Browser) -> None:
    browser.log_in()
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.driver.refresh()
        assert browser.find("meta[http-equiv='refresh']").get_attribute("content") == "10"
        fail.delay("x")
        wait_until(lambda: browser.text_of("#tile-ready").split() == ["1", "Pending"])
        browser.click("[data-queue='default']")
        wait_until(lambda: "paused" in browser.text_of("#queues"))
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_hostile_content_does_nothing(site: Site, browser: Browser) -> None:
    hostile = (
        "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
    )
    for status in ("failed", "ready"):
        Task.objects.create(
            task_name=hostile,
            args=[hostile],
            queue=hostile[:100],
            status=status,
            error=hostile,
            exception=hostile,
            place=hostile,
            finished_at=timezone.now(),
        )
    browser.log_in()
    for path in ("dashboard/", "failedtask/", "failedtask/1/change/", "pendingtask/2/change/"):
        browser.open(f"/admin/snappea/{path}")
        browser.wait_for_text("</script><script>document.title")
        assert browser.driver.title != "taken" and not browser.all("img[src='x']")


def test_the_page_tells_who_cannot_see_it(site: Site, browser: Browser) -> None:
    """Tables have headers, buttons and charts have names, and changes are announced."""
    site.foreman()
    nap.delay("x", 60)
    fail.delay("y")
    wait_until(lambda: site.counts() == {"running": 1, "failed": 1})
    browser.log_in()
    for table in browser.all("#content table"):
        assert table.find_elements(By.CSS_SELECTOR, "thead th[scope='col']")
        assert table.find_elements(By.CSS_SELECTOR, "tbody th[scope='row']")
    names = [button.accessible_name for button in browser.all("#content button")]
    assert len(names) == len(set(names)) == 3 and f"Terminate {nap.name} #1" in names
    assert "Pause default" in names and f"Requeue all 1 ValueError {fail.name}" in names
    for chart in browser.all("#content svg[role='img']"):
        assert len(chart.accessible_name) > 20
    ids = browser.driver.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_screen_readers_hear_only_of_changes_of_the_problems(site: Site, browser: Browser) -> None:
    site.foreman()
    nap.delay("x", 60)
    browser.log_in()
    browser.wait_for_text("1 of 4 threads busy")
    assert not browser.driver.execute_script("return document.getElementById('sp-announce').textContent")
    fail.delay("y")
    told = "return document.getElementById('sp-announce').textContent"
    wait_until(lambda: "1 task failed in the last hour." in browser.driver.execute_script(told))


def test_the_problems_are_seen_without_scrolling_and_reached_in_15_stops(
    site: Site, browser: Browser
) -> None:
    """Also with 5 groups of failures and 12 workers."""
    for number in range(8):
        Task.objects.create(
            task_name=f"shop.tasks.ship_{number}",
            status="failed",
            exception=f"Error{number}",
            place="shop/tasks.py:17 in ship",
            error="Traceback\nError: " + "no luck " * 40,
            finished_at=timezone.now(),
        )
    site.foreman(NUM_WORKERS=12)
    browser.log_in()
    browser.look_like(1400)
    browser.open("/admin/snappea/dashboard/")
    bottom = "return document.querySelector(arguments[0]).getBoundingClientRect().bottom"
    for part in ("#sp-health", "#tile-failed", "#sp-main", "#running"):
        browser.find(part)
        assert browser.driver.execute_script(bottom, part) <= 900, part
    tall = "return [...document.querySelectorAll('.sp-slots tbody tr')].map(row => row.offsetHeight)"
    assert len(set(browser.driver.execute_script(tall))) == 1, "so that nothing jumps"
    groups = [group.get_attribute("id") for group in browser.all(".sp-group")]
    browser.press(Keys.TAB, Keys.ENTER)  # to the page's content
    browser.press(Keys.TAB, Keys.ENTER)  # to the failures
    reached, inside = [], "return document.activeElement.closest('.sp-group')?.id"
    for _ in range(13):
        browser.press(Keys.TAB)
        reached.append(browser.driver.execute_script(inside))
    assert len(groups) == 5 and set(groups) <= set(reached)


def test_each_group_of_failures_is_reached_by_keyboard_in_15_stops(site: Site, browser: Browser) -> None:
    """Also without JavaScript: a list of all groups comes first. The wanted one is typed."""
    for number in range(40):
        Task.objects.create(task_name="shop.ship", status="failed", exception=f"Error{number:02}")
    browser.log_in()
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open("/admin/snappea/dashboard/failures/")
        browser.press(Keys.TAB, Keys.ENTER)  # to the page's content
        browser.press(Keys.TAB, Keys.ENTER)  # to the failures
        browser.press(Keys.TAB, *"Error33", Keys.TAB, Keys.ENTER)
        wait_until(lambda: "exception%3AError33" in browser.driver.current_url)
        wait_until(lambda: browser.text_of("#list-count") == "1 task")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_crosshair_reads_the_charts(site: Site, browser: Browser) -> None:
    """By keyboard and pointer; it stays where it is when the page refreshes."""
    for back in range(20, 0, -1):
        write_minute(back, {record.name: {"done": back, "failed": 1}})
    browser.log_in()
    browser.open(f"/admin/snappea/dashboard/type/?name={record.name}")
    scrub = browser.tab_to(lambda element: "sp-scrub" in (element.get_attribute("class") or ""))
    browser.press(Keys.LEFT, Keys.LEFT, Keys.LEFT, Keys.LEFT)
    time, failed, *_, done = browser.text_of("#chart-ended .sp-readout").splitlines()
    assert failed == "failed: 1" and re.fullmatch(r"done: [34]", done)
    assert scrub.get_attribute("aria-valuetext").startswith(f"{time}, failed: 1, ")
    Task.objects.create(task_name=record.name, status="failed", finished_at=timezone.now())
    wait_until(lambda: browser.text_of("#state-failed").startswith("1"))
    assert browser.text_of("#chart-ended .sp-readout").splitlines() == [time, failed, *_, done]
    browser.press(Keys.ESCAPE)
    wait_until(lambda: not browser.all("#chart-ended .sp-readout:not([hidden])"))
    plot = browser.find("#chart-wait .sp-plot svg")
    webdriver.ActionChains(browser.driver).move_to_element(plot).perform()
    assert "median: —" in browser.text_of("#chart-wait .sp-readout")


def test_what_it_looks_like(site: Site, browser: Browser) -> None:
    """Save each page, light, dark and on a phone; none is wider than the window."""
    _fill()
    operations.pause("reports")
    nap.apply_async(("x", 1), queue="reports")
    site.foreman()
    nap.delay("y", 60)
    wait_until(lambda: site.counts().get("running"))
    failed = Task.objects.filter(status="failed").earliest("pk").pk
    browser.log_in()
    pages = {
        "dashboard": "snappea/dashboard/",
        "index": "",
        "failed": "snappea/failedtask/",
        "task": f"snappea/failedtask/{failed}/change/",
        "active": "snappea/activetask/",
        "pending": "snappea/pendingtask/",
        "future": "snappea/futuretask/",
        "finished": "snappea/finishedtask/",
    }
    backgrounds = set()
    for look in ((1280, "light"), (1280, "dark"), (390, "light")):
        browser.look_like(*look)
        shown = pages if look == (1280, "light") else {name: pages[name] for name in ("dashboard", "failed")}
        for name, path in shown.items():
            browser.open(f"/admin/{path}")
            browser.find("#content")
            browser.shoot(f"{name}-{look[0]}-{look[1]}")
        browser.open("/admin/snappea/dashboard/")
        scroll = "return document.documentElement.scrollWidth - window.innerWidth"
        assert browser.driver.execute_script(scroll) <= 0
        color = "return getComputedStyle(document.querySelector('#tile-failed a')).backgroundColor"
        backgrounds.add(browser.driver.execute_script(color))
    assert len(backgrounds) == 2, "light and dark"


def _fill() -> None:
    """Create hours of statistics, and tasks in all states."""
    chance = random.Random(4)
    for back in range(299, 0, -1):
        numbers = {}
        for share, name in enumerate(("mail.tasks.send_mail", "shop.tasks.ship", "reports.tasks.nightly"), 1):
            done = int(chance.random() * 80 / share)
            failed = int(chance.random() * 5 / share) * (back % 11 < 3)
            times = {-5: done // 2, -3: done // 3, 0: failed}
            numbers[name] = {"done": done, "failed": failed, "run_times": times, "wait_times": times}
        write_minute(back, numbers, starts=int(back == 40))
    moment = timezone.now()
    put = partial(Task.objects.create, enqueued_at=moment - timedelta(hours=1), attempts=1)
    frames = "".join(
        f'  File "/srv/shop/{name}.py", line 17, in {name}\n    {name}(order)\n' for name in ("ship", "book")
    )
    error = (
        f"Traceback (most recent call last):\n{frames}shop.errors.OutOfStock: <b>no luck</b> with order 17\n"
    )
    attempts = "".join(
        json.dumps({"attempt": at, "at": f"2026-11-21 12:0{at}:00", "error": "TimeoutError: no answer"})
        + "\n"
        for at in (1, 2, 3)
    )
    place = {"exception": "shop.errors.OutOfStock", "place": "shop/book.py:17 in book"}
    for at in range(30):
        ended = moment - timedelta(minutes=at)
        put(
            task_name="shop.tasks.ship",
            args=[at, "<b>"],
            status="failed",
            finished_at=ended,
            error=error,
            errors=attempts,
            **place,
        )
    for at in range(7):
        due = moment + timedelta(minutes=5 * at + 3)
        put(
            task_name="mail.tasks.send_mail",
            args=[at],
            status="scheduled",
            run_after=due,
            error="TimeoutError: no",
        )
    for at in range(4):
        began = moment - timedelta(seconds=14 * at + 3)
        put(
            task_name="reports.tasks.nightly",
            status="successful",
            started_at=began,
            finished_at=moment,
            result=[at],
        )
    put(
        task_name="reports.tasks.nightly", status="interrupted", finished_at=moment, error="The Foreman died."
    )


def test_a_task_is_followed_on_its_page(site: Site, browser: Browser) -> None:
    """Until it succeeds, and its row is gone."""
    site.foreman()
    path = site.directory / "go"
    pk = wait_for.delay("x", str(path)).id
    browser.log_in()
    browser.open(f"/admin/snappea/task/{pk}/change/")
    browser.wait_for_text("Has run")
    path.touch()
    browser.wait_for_text(f"Task #{pk} does not exist: it succeeded or was deleted.")


def test_from_failure_to_failure_on_the_pages_of_tasks(site: Site, browser: Browser) -> None:
    """What the user has opened stays open when the page refreshes itself, and a button keeps the focus."""
    site.foreman()
    first = fail.delay("a").id
    wait_until(lambda: site.counts() == {"failed": 1})  # the list is sorted by when they failed
    last = fail.delay("b").id
    wait_until(lambda: site.counts() == {"failed": 2})
    browser.log_in()
    browser.open(f"/admin/snappea/task/{last}/change/?q=state:failed")
    browser.click("#sp-next")
    browser.wait_for_text("no luck with a")
    browser.click("#library-error-1 summary")
    browser.driver.execute_script("document.querySelector('.sp-event').dataset.seen = 'before'")
    button = browser.find(f"#requeue-{first}")
    browser.tab_to(lambda element: element == button)
    wait_until(lambda: not browser.all("[data-seen]"))
    assert browser.driver.switch_to.active_element == button
    assert browser.find("#library-error-1").get_attribute("open")
    for width in (1400, 768, 390):
        browser.look_like(width)
        assert browser.driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    browser.press(Keys.ENTER)
    browser.wait_for_text("Requeued: 1 task.")
    wait_until(lambda: site.ledger.count("start", "a") == 2)
    assert browser.driver.current_url.endswith(f"/task/{first}/change/?q=state%3Afailed")


def test_what_the_user_ticked_and_opened_survives_a_refresh(site: Site, browser: Browser) -> None:
    """In the list and on the overview; the focus stays too."""
    put = partial(Task.objects.create, task_name=fail.name, status="failed")
    first, last = (put(finished_at=timezone.now()).pk for _ in range(2))
    browser.log_in()
    browser.open("/admin/snappea/task/?q=state:failed")
    box = browser.find(f"#run-{first} input")
    box.click()
    new = put(finished_at=timezone.now()).pk
    browser.find(f"#run-{new}")
    assert box.is_selected() and browser.driver.switch_to.active_element == box
    assert not browser.find(f"#run-{last} input").is_selected()
    assert not browser.find(f"#run-{new} input").is_selected()
    browser.open("/admin/snappea/dashboard/")
    summary = browser.find("#chart-ended-table summary")
    summary.click()
    put(finished_at=timezone.now())
    wait_until(lambda: browser.text_of("#tile-failed").split() == ["4", "Failed"])
    assert browser.find("#chart-ended-table").get_attribute("open")
    assert browser.driver.switch_to.active_element == summary


def test_a_page_says_that_it_is_stale_or_logged_out(site: Site, browser: Browser) -> None:
    browser.log_in()
    browser.wait_for_text("The page refreshes itself.")
    browser.driver.execute_cdp_cmd("Network.enable", {})
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **offline})
    try:
        browser.wait_for_text("The page could not be refreshed. It shows how things were at")
    finally:
        browser.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, **offline})
    wait_until(lambda: not browser.find("#sp-stale").is_displayed())
    assert all("ERR_INTERNET_DISCONNECTED" in message for message in browser.complaints())
    browser.driver.delete_all_cookies()
    browser.wait_for_text("You are no longer logged in. The page shows how things were at")
