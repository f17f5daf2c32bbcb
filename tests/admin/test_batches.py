"""The list of batches, the page of a batch, and where else the admin shows them."""

import json
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

import snappea
from snappea.admin.console import LIVE
from snappea.models import Batch, Status, Task
from tests.admin.forms import press
from tests.admin.test_lists import HOSTILE, client, messages_of
from tests.playground.batched import close, noted, work
from tests.playground.tasks import echo, wait_for
from tests.site import Site, wait_until

OVERVIEW, TASKS = "/admin/snappea/dashboard/", "/admin/snappea/task/"
PAGES = f"{TASKS}batch/"


def new(*statuses: str, succeeded: int = 0, **more: Any) -> snappea.Batch:
    """Return a batch with a member in each state, and some that have succeeded."""
    with snappea.batch(**more) as batch:
        work.delay_many((number,) for number in range(len(statuses) + succeeded))
    ids = Task.objects.filter(batch_id=batch.id).order_by("pk").values_list("pk", flat=True)
    for pk, status in zip(list(ids), statuses, strict=False):
        Task.objects.filter(pk=pk).update(status=status)
    Task.objects.filter(pk__in=list(ids)[len(statuses) :]).delete()
    Batch.objects.filter(pk=batch.id).update(succeeded=succeeded)
    return batch


def page_of(batch: snappea.Batch, browser: Client | None = None) -> str:
    return (browser or Client()).get(f"{PAGES}{batch.id}/").content.decode()


def words(text: str) -> str:
    """Return the words of the live part of a page."""
    return " ".join(re.sub(r"<[^>]*>", " ", text.partition('id="sp-live"')[2]).split())


def test_the_page_of_a_batch(browser: Client) -> None:
    batch = new(*Status.values, "failed", succeeded=3, on_success=noted.s("x"), description="Summer")
    Batch.objects.update(total=13)
    text = page_of(batch, browser)
    told = words(text)
    for part in ("3 of 13 have succeeded", "Summer", "2 Failed", "1 Dirty", "1 Active", "1 Pending"):
        assert part in told, part
    assert "3 Succeeded" in told and "3 Gone" in told and f"on_success {noted.name} not yet" in told
    for status in {*Status.values} - {"successful"}:
        assert f'{TASKS}?q=batch%3A{batch.id}%20state%3A{status}"' in text, status
    bars = re.findall(r'<rect class="sp-part-(\w+)" x="(\d+)" width="(\d+)"', text)
    assert {state for state, _x, _width in bars} == {*Status.values, "succeeded", "gone"} - {"successful"}
    ends = [int(x) + int(width) for _state, x, width in bars]
    assert [int(x) for _state, x, _width in bars] == [0, *ends[:-1]]
    assert f'viewBox="0 0 {ends[-1]} 10"' in text


def test_chains_are_not_listed_but_have_pages(browser: Client) -> None:
    new("ready", description="Summer")
    work.s(1).then(noted.s("x")).then(close).delay()
    chain = Batch.objects.latest("pk")
    for path in (OVERVIEW, PAGES):
        text = browser.get(path).content.decode()
        assert "Summer" in text and f"{PAGES}{chain.pk}/" not in text
    assert f"on_success {noted.name} → {close.name} not yet" in words(
        page_of(snappea.Batch(chain.pk), browser)
    )


def test_one_failure_of_many_is_seen(browser: Client) -> None:
    batch = new("failed", succeeded=1)
    Batch.objects.update(total=1_000_000, succeeded=999_999)
    width = re.search(r'sp-part-failed" x="\d+" width="(\d+)"', page_of(batch, browser))
    assert width and int(width[1]) >= 5


def test_it_shows_the_batches_in_it_and_around_it(browser: Client) -> None:
    with snappea.batch(description="outer") as outer:
        work.delay(1)
        with snappea.batch(description="inner", on_complete=close) as inner:
            work.delay(2)
    told, inner_told = words(page_of(outer, browser)), words(page_of(inner, browser))
    assert "0 of 2 have succeeded" in told and f"#{inner.id} inner" in told
    assert "0 of 1 have succeeded" in inner_told and f"Part of #{outer.id} outer" in inner_told
    listed = browser.get(PAGES).content.decode()
    assert f'id="batch-{outer.id}"' in listed and f'id="batch-{inner.id}"' not in listed


def test_callbacks_are_links_once_they_are_enqueued(browser: Client) -> None:
    callbacks: Any = {"on_complete": close, "on_failure": noted.s("x")}
    with snappea.batch(**callbacks) as batch:
        pass
    row = Batch.objects.get()
    text = page_of(batch, browser)
    assert f'href="{TASKS}{row.complete_id}/change/"' in text and "not enqueued" in text
    Task.objects.all().delete()
    assert f"{close.name} #{row.complete_id} succeeded or deleted" in words(page_of(batch, browser))


def test_the_page_of_a_task_names_its_batch(browser: Client) -> None:
    batch = new("failed", succeeded=2, description="Summer")
    page = f"{TASKS}{Task.objects.get().pk}/change/"
    text = browser.get(page).content.decode()
    assert f'href="{PAGES}{batch.id}/"' in text
    assert f"Batch #{batch.id} Summer 2 of 3" in words(text)
    Batch.objects.all().delete()
    assert browser.get(page).status_code == 200


def test_open_batches_are_on_the_overview(browser: Client) -> None:
    assert "Open batches" not in browser.get(OVERVIEW).content.decode()
    assert 'href="/admin/snappea/task/batch/"' not in browser.get(TASKS).content.decode()
    assert "There are no batches" in browser.get(PAGES).content.decode()
    batch = new("ready", "failed", description="Summer")
    told = words(browser.get(OVERVIEW).content.decode())
    assert f"#{batch.id} Summer 0 of 2 1" in told
    assert 'href="/admin/snappea/task/batch/"' in browser.get(TASKS).content.decode()
    assert f'href="{PAGES}{batch.id}/"' in browser.get(f"{TASKS}?q=batch:{batch.id}").content.decode()
    Task.objects.all().delete()
    with snappea.Batch(batch.id):
        pass
    assert "Open batches" not in browser.get(OVERVIEW).content.decode()
    assert "Summer" in words(browser.get(PAGES).content.decode())


def test_cancel_the_rest(browser: Client) -> None:
    new("ready")
    with snappea.batch(on_complete=close, on_success=noted.s("x"), description="Summer") as batch:
        work.delay(1)
        with snappea.batch():
            work.apply_async((2,), countdown=60)
    asked = press(browser, browser.get(f"{PAGES}{batch.id}/"), "batch-cancel")
    assert f"batch:{batch.id}" in words_of(asked) and "2 tasks" in words_of(asked)
    assert Task.objects.count() == 3
    done = press(browser, asked, "sp-confirm")
    assert messages_of(done) == ["Cancelled: 2 tasks."]
    assert LogEntry.objects.filter(change_message="Cancelled").count() == 2
    assert f'href="{PAGES}{batch.id}/"' in done.content.decode()  # the way back
    assert [task.task_name for task in Task.objects.order_by("pk")[1:]] == [close.name]
    text = page_of(batch, browser)
    assert "batch-cancel" not in text and "2 Gone" in words(text)


def words_of(response: Any) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", response.content.decode()).split())


def test_who_may_see_and_cancel(site: Site) -> None:
    batch = new("ready", description="Summer")
    for page in (PAGES, f"{PAGES}{batch.id}/"):
        assert client(f"staff {page}", is_staff=True).get(page).status_code == 403
        assert Client().get(page)["Location"].startswith("/admin/login/")
        text = client(f"viewer {page}", "view").get(page).content.decode()
        assert "Summer" in text and "<button" not in text.partition('id="content"')[2]
        assert client(f"poster {page}", "change").post(page).status_code == 405
    assert "batch-cancel" in page_of(batch, client("changer", "change"))


@pytest.mark.parametrize("pk", ["0", "7", "9" * 18, "9" * 30])
def test_a_batch_that_does_not_exist(browser: Client, pk: str) -> None:
    assert browser.get(f"{PAGES}{pk}/").status_code == 404
    assert browser.get(f"{TASKS}?q=batch:{pk}").status_code == (200 if len(pk) < 19 else 400)


@pytest.mark.parametrize(
    "broken", [HOSTILE.replace("\0", ""), "[" * 99_999, "[]", "{}", "7", json.dumps({"extras": 7})]
)
def test_hostile_texts_and_rows_that_were_written_by_hand(browser: Client, broken: str) -> None:
    hostile = HOSTILE.replace("\0", "")
    batch = new("failed", description=hostile * 200)
    Batch.objects.update(on_success=broken, on_failure=broken, failure_id=0, total=-5, parent_id=batch.id)
    pages = (OVERVIEW, PAGES, f"{PAGES}{batch.id}/", f"{TASKS}{Task.objects.get().pk}/change/")
    for page in pages:
        text = browser.get(page).content.decode()
        assert "<script>alert" not in text and "\u202e" not in text, page
    assert "&lt;script&gt;alert(1)" in page_of(batch, browser)


def test_the_page_follows_a_batch_to_its_end(site: Site, browser: Client) -> None:
    gate = site.directory / "gate"
    with snappea.batch(on_complete=close) as batch:
        wait_for.delay("x", str(gate))
        echo.delay()

    def shows(*parts: str) -> bool:
        text = words(
            f'id="sp-live"{browser.get(f"{PAGES}{batch.id}/", headers={LIVE: "1"}).content.decode()}'
        )
        return all(part in text for part in parts)

    site.foreman()
    wait_until(lambda: shows("1 of 2 have succeeded", "1 Active", "not yet"))
    gate.touch()
    wait_until(lambda: shows("2 of 2 have succeeded", f"{close.name} #", "ended"))
