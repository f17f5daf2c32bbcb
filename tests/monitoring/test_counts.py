"""Counts stop at MOST_COUNTED + 1, so that no page and no start costs more with more rows."""

import io
import re
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from django.test import Client, RequestFactory

from snappea.metrics import metrics
from snappea.monitoring import inspect, shared
from snappea.queue import store
from snappea.queue.dialects import MOST_COUNTED
from tests.site import Site
from tests.web import user

pytestmark = pytest.mark.on_both
MORE = MOST_COUNTED + 1
FILL = """
    INSERT INTO snappea_task (task_name, enqueued_at, finished_at, status, exception, place, queue)
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 100050)
    SELECT 'shop.charge', '2026-01-01', '2026-01-01', status, 'KeyError', 'shop.py:1', 'mail'
    FROM numbers CROSS JOIN (SELECT 'ready' AS status UNION ALL SELECT 'failed') AS statuses"""


@pytest.mark.urls("tests.urls")
def test_counts_are_capped(site: Site, settings: Any) -> None:
    settings.SNAPPEA = {**site.settings, "MONITORING_IS_PUBLIC": True}
    with connections["snappea"].cursor() as cursor:
        cursor.execute(FILL)
        cursor.execute("UPDATE snappea_task SET status = 'cancelled' WHERE id IN (1, 2, 3)")
    found = inspect.totals()
    assert found["counts"]["ready"] == found["counts"]["failed"] == store.depth() == MORE
    assert found["counts"]["cancelled"] == 3 and found["failed_lately"] == 0
    assert inspect.few_totals() == {"tasks": MORE, "failed": MORE, "running": 0, "schedules": 0}
    assert {queue.name: queue.ready for queue in inspect.queues()}["mail"] == MORE
    assert inspect.queues(most=1)[1].ready == 1
    assert [group.number for group in inspect.failures()] == [MORE]

    text = metrics(RequestFactory().get("/")).content.decode()
    assert f'snappea_tasks{{status="ready"}} {MORE}\n' in text
    assert f'snappea_queue_tasks{{queue="mail",state="ready"}} {MORE}\n' in text
    said = io.StringIO()
    call_command("snappea", "status", stdout=said)
    assert "100000+ failed" in said.getvalue() and "100000+ ready, 0 running" in said.getvalue()
    look_at_pages()
    assert "100000+ tasks ready" in site.foreman("--queues", "other").output()


def look_at_pages() -> None:
    shared.forget()
    browser = Client()
    browser.force_login(user(is_superuser=True))

    def shown(address: str) -> str:
        text = browser.get(f"/admin/{address}").content.decode()
        return re.sub(r"\s+", " ", re.sub("<[^>]*>", "", text))

    assert "100,000+ Failed" in shown("snappea/dashboard/")
    assert "100,000+ failed tasks" in shown("snappea/dashboard/failures/")
    assert "Page 2,000 of 2,000" in (last := shown("snappea/task/?q=state:ready&page=2000"))
    assert "100,000+ tasks" in last and "All 100,000+" in last
    assert "Failed (100,000+)" in shown("")
