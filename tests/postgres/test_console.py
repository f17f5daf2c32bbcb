"""The console with the queue on PostgreSQL, beside a default database on SQLite."""

import csv
import io
import json
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.db import transaction
from django.db.models import BooleanField
from django.db.models.expressions import RawSQL
from django.test import Client
from django.utils import timezone

import snappea
from snappea.admin.search import Found, Search, scan
from snappea.models import Schedule, ScheduleRun, Status, Task
from snappea.monitoring import shared
from snappea.queue.database import connect
from tests.admin.forms import press
from tests.minutes import write_minute
from tests.playground.sensitive import fail_with_it
from tests.playground.tasks import record
from tests.site import PostgresSite
from tests.web import user

pytestmark = pytest.mark.on_postgres
HOSTILE = "<script>alert(1)</script></pre>\u202e'\"&%_\\;--"
SECRET = "needle"
ADMIN = "/admin/snappea/"
#: Written by hand: neither JSON, nor JSON that PostgreSQL can decode, nor what arguments should be.
BROKEN = (
    *("", "[77", "not 77", "77", "null", "[NaN, 77]", "{77}", "[77,]", "[01, 77]", '["\\u0000", 77]'),
    *('["\\ud800", 77]', '{"key": 77', "[" * 3000 + "77", '"\\u00', "\ufeff[77]", "]77["),
)


@pytest.fixture
def browser(site: PostgresSite, monkeypatch: pytest.MonkeyPatch) -> Client:
    """Return a superuser's browser, which is shown no shared values."""
    monkeypatch.setattr(shared, "SECONDS", 0.0)
    browser = Client()
    browser.force_login(user(is_superuser=True))
    return browser


def put(status: str = "failed", **columns: Any) -> Task:
    """Insert a task with hostile texts."""
    moment = timezone.now() - timedelta(minutes=1)
    defaults: dict[str, Any] = {
        "task_name": record.name,
        "args": [HOSTILE],
        "kwargs": {"word": HOSTILE},
        "queue": HOSTILE,
        "enqueued_at": moment,
        "run_after": moment + timedelta(hours=1) if status == "scheduled" else None,
        "started_at": moment if status == "running" else None,
        "foreman_id": 1 if status == "running" else None,
        "finished_at": moment if status in ("failed", "interrupted", "successful", "cancelled") else None,
        "claims": 1,
        "error": f"KeyError: {HOSTILE}",
        "exception": HOSTILE if status == "failed" else "",
        "place": HOSTILE if status == "failed" else "",
        "log": json.dumps([1, "2026-01-01 00:00:00", "INFO", "shop", HOSTILE], ensure_ascii=False),
    }
    return Task.objects.create(status=status, **(defaults | columns))


def page(browser: Client, address: str) -> str:
    response = browser.get(f"{ADMIN}{address}")
    assert response.status_code == 200, address
    text: str = response.content.decode()
    assert "<script>alert" not in text and SECRET not in text
    return text


def found(text: str) -> list[int]:
    return scan(Search(text).tasks().order_by("pk"), seconds=60).ids


def exported(browser: Client, q: str, kind: str) -> Any:
    response = browser.get(f"{ADMIN}task/export/?format={kind}&q={quote(q)}")
    assert response.status_code == 200
    text = b"".join(response.streaming_content).decode()  # type: ignore[attr-defined]
    assert SECRET not in text
    return json.loads(text) if kind == "json" else list(csv.DictReader(io.StringIO(text)))


def test_each_page_shows_the_rows_in_each_state(browser: Client) -> None:
    tasks = [put(status) for status in Status.values for _ in range(2)]
    tasks += [put(args=text, kwargs=text, errors=text, result=text) for text in BROKEN]
    tasks.append(put("failed", task_name=fail_with_it.name, args=[SECRET], log=SECRET))
    tasks.append(put("ready", task_name=HOSTILE, args=[SECRET], is_sensitive=True))
    write_minute(5, {record.name: {"done": 90, "failed": 10, "run_times": {0: 90}}}, starts=1)
    for task in tasks:
        state = Search().with_term("state", task.status).text
        assert f'id="run-{task.pk}"' in page(browser, f"task/?q={quote(state)}")
        assert f"#{task.pk}" in page(browser, f"task/{task.pk}/change/?q={quote(state)}")
    assert "KeyError" in page(browser, "task/?q=" + quote('state:failed reversed "KeyError"'))
    overview = page(browser, "dashboard/?hours=24")
    assert record.name.rpartition(".")[2] in overview
    for order in ("", "?sort=last"):
        assert "&lt;script&gt;alert(1)" in page(browser, f"dashboard/failures/{order}")
    assert record.name.rpartition(".")[2] in page(browser, "dashboard/workers/")
    for name in (record.name, HOSTILE, "unknown"):
        page(browser, f"dashboard/type/?name={quote(name)}&hours=6")
    page(browser, f"task/enqueue/?name={record.name}&like={tasks[0].pk}")
    assert browser.get("/admin/").status_code == 200


def test_searches_find_what_they_must_also_among_broken_rows(browser: Client) -> None:
    one = put(args=[77], kwargs={"order": 77, "deep": [{"a": [1.5e3, None]}, "\\u0000 é😀"]}).pk
    broken = [put(args=text, kwargs=text).pk for text in BROKEN]
    hidden = [put(task_name=fail_with_it.name, args=[77], kwargs={"order": 77, "key": SECRET}).pk]
    hidden.append(put(is_sensitive=True, kwargs={"order": 77}, error=SECRET, log=f'["{SECRET}"]').pk)
    assert found("args.order:77") == found("args.key:77") == [one]
    assert found(f"args.order:77 task:{record.name} state:failed age:>1s ended:<1h") == [one]
    assert found("77 state:failed")[0] == one and not {*hidden} & {*found("77")}
    assert set(found("77")) == {one, *(pk for pk, text in zip(broken, BROKEN, strict=True) if "77" in text)}
    for key in ("", "error", "log", "args.key", "args.order"):
        assert found(Search().with_term(key, SECRET).text) == [], key
    everything = [one, *broken, *hidden]
    for key in ("queue", "exception", "place"):
        assert found(Search().with_term(key, HOSTILE).text) == everything, key
    for key in ("", "error", "log"):
        shown = found(Search().with_term(key, HOSTILE.upper()).text)
        assert {*broken} <= {*shown} and not {*hidden} & {*shown}, key
    assert f'id="run-{one}"' in page(browser, "task/?q=args.order:77")


def test_exports(browser: Client) -> None:
    put(args=[SECRET], task_name=fail_with_it.name)
    tasks = [put(args=text, kwargs=text) for text in BROKEN] + [put(status) for status in Status.values]
    for kind in ("csv", "json"):
        assert {int(row["id"]) for row in exported(browser, "", kind)} >= {task.pk for task in tasks}
        assert len(exported(browser, Search().with_term("args.word", HOSTILE).text, kind)) == len(Status)


def test_actions_are_confirmed_and_done(browser: Client) -> None:
    tasks = [put(kwargs={"order": 77}) for _ in range(3)] + [put(args=text, kwargs=text) for text in BROKEN]
    asked = browser.post(f"{ADMIN}task/bulk/requeue/", {"q": "args.order:77"})
    assert asked.status_code == 200 and "3 tasks" in " ".join(asked.content.decode().split())
    press(browser, asked, "sp-confirm")
    assert {task.pk for task in Task.objects.filter(status="ready")} == {task.pk for task in tasks[:3]}
    asked = browser.post(f"{ADMIN}task/bulk/delete/", {"ids": [task.pk for task in tasks[3:]]})
    press(browser, asked, "sp-confirm")
    assert Task.objects.count() == 3


def test_batches(browser: Client) -> None:
    with snappea.batch(on_complete=record.s("x"), description=HOSTILE) as batch:
        record.delay(1)
        with snappea.batch():
            record.apply_async((2,), countdown=60)
    Task.objects.filter(status="ready").update(status="failed")
    said = "0 of 2 have succeeded"
    for address in ("dashboard/", "task/batch/", f"task/batch/{batch.id}/"):
        assert said in page(browser, address), address
    assert f"/task/batch/{batch.id}/" in page(browser, f"task/{Task.objects.earliest('pk').pk}/change/")
    asked = press(browser, browser.get(f"{ADMIN}task/batch/{batch.id}/"), "batch-cancel")
    press(browser, asked, "sp-confirm")
    text = page(browser, f"task/batch/{batch.id}/")
    assert "1 Failed" in text and "1 Gone" in text and f"#{Task.objects.latest('pk').pk}</a>" in text


def test_the_schedules(browser: Client) -> None:
    moment = timezone.now()
    for name, text in ((HOSTILE, "[1"), ("plain", "[1]")):
        row = Schedule.objects.create(
            name=name,
            task_name=record.name,
            expression="0 * * * *",
            timezone="UTC",
            args=text,
            next_run=moment,
        )
        run = put("failed")
        ScheduleRun.objects.create(schedule=name, at=moment, task_id=run.pk)
        ScheduleRun.objects.create(schedule=name, at=moment, outcome=HOSTILE)
        assert f"/task/{run.pk}/change/" in page(browser, f"schedule/{row.pk}/change/")
    shown = page(browser, "schedule/")
    assert "&lt;script&gt;alert(1)" in shown and "plain" in shown
    page(browser, "schedule/add/")


def test_a_search_that_ends_early_tells_what_it_found_and_leaves_no_limit(site: PostgresSite) -> None:
    row = "INSERT INTO snappea_task (task_name, enqueued_at) SELECT 'a', now() FROM generate_series(1, 700)"
    site.sql(row)
    slow = RawSQL("id > 500 OR pg_sleep(600) IS NULL", (), output_field=BooleanField())
    with transaction.atomic(connect().alias), connect().cursor() as cursor:
        cursor.execute("SET LOCAL enable_sort = off")  # so that an index finds them one after the other
        assert scan(Task.objects.filter(slow).order_by("-pk"), seconds=2) == Found(
            [*range(700, 500, -1)], False
        )
        assert scan(Task.objects.order_by("pk")) == Found([*range(1, 701)], True)
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)
