"""Alerts: each is told once, by one of all processes, and again when it is over."""

import asyncio
import json
import time
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.utils import timezone

from snappea.models import Stat, UniqueUntil
from snappea.monitoring import alerts
from tests.playground.tasks import fail, record
from tests.site import Site, wait_until

NOTE, FAIL = "tests.playground.alerted.note", "tests.playground.alerted.fail"
#: A web process: it enqueues until an alert was told, and then some more.
WEB = """
import time
from snappea.monitoring import alerts
alerts.LOOK_EVERY = 0.0
end = time.monotonic() + 60
while time.monotonic() < end and not (settings.DIR / "alerts").exists():
    nothing.delay()
for _ in range(20):
    nothing.delay()
"""


def told(site: Site) -> list[list[Any]]:
    file = site.directory / "alerts"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def look() -> None:
    asyncio.run(alerts.look())


@pytest.mark.on_both
def test_without_a_foreman_one_of_many_processes_tells_it(site: Site) -> None:
    site.settings["ALERT"] = {"TO": NOTE, "NO_FOREMAN": 1, "BACKLOG": None, "FAILURES": None}
    webs = [site.program("from django.conf import settings\n" + WEB) for _ in range(3)]
    for web in webs:
        assert web.wait() == 0, web.output()
    assert [line[:2] for line in told(site)] == [["no_foreman", False]]
    assert "No Foreman has run for at least 1 s" in told(site)[0][2]
    foreman = site.foreman()
    code = f"from snappea.tasks.function import registry\nregistry[{alerts.__name__ + '.look'!r}].delay()"
    assert site.program(code).wait() == 0
    wait_until(lambda: len(told(site)) == 2, f"{told(site)}")
    site.wait_until_empty()
    assert foreman.stop() == 0
    assert told(site)[1] == ["no_foreman", True, "Over: a Foreman runs again."]
    assert not UniqueUntil.objects.exists()


def test_a_gap_between_two_foremen_is_no_alert(site: Site, settings: Any) -> None:
    settings.SNAPPEA = site.settings | {"ALERT": {"TO": NOTE, "BACKLOG": None}}
    alerts._look_for_foreman()
    assert UniqueUntil.objects.get().until > timezone.now() + timedelta(seconds=50)
    look()  # by the next Foreman
    assert not UniqueUntil.objects.exists() and not told(site)


def test_a_backlog_is_mailed_to_the_admins(site: Site, settings: Any) -> None:
    settings.SNAPPEA = site.settings | {"ALERT": {}}
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    mail.outbox = []
    record.delay("x")
    look()
    assert not mail.outbox
    site.sql("UPDATE snappea_task SET enqueued_at = '2026-01-01 00:00:00'")
    look()
    look()
    assert [message.to for message in mail.outbox] == [["admin@localhost"]]
    assert "The limit is 300 s." in mail.outbox[0].subject == f"[Django] Snappea: {mail.outbox[0].body}"
    site.sql("DELETE FROM snappea_task")
    look()
    look()
    assert mail.outbox[1].body == "Over: no task waits for too long any more." and len(mail.outbox) == 2


def test_failures_of_a_task(site: Site, settings: Any) -> None:
    settings.SNAPPEA = site.settings | {"ALERT": {"TO": NOTE, "FAILURES": [20, 10]}}
    lately = timezone.now() - timedelta(minutes=2)
    Stat.objects.create(minute=lately, task_name=record.name, done=8, failed=2)
    Stat.objects.create(minute=lately, task_name=fail.name, done=7, failed=2, retried=5)
    Stat.objects.create(minute=lately - timedelta(hours=1), task_name=record.name, failed=5)
    look()
    look()
    text = f"2 of 9 runs of {fail.name} failed in the last 10 minutes."
    assert told(site) == [[fail.name, False, text]]
    Stat.objects.all().delete()
    look()
    assert told(site)[1:] == [[fail.name, True, f"Over: {fail.name} no longer fails too often."]]


def test_what_could_not_be_told_is_told_later(
    site: Site, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alerts, "PATIENCE", 0.0)
    settings.SNAPPEA = site.settings | {"ALERT": {"TO": FAIL, "BACKLOG": 1}}
    record.delay("x")
    site.sql("UPDATE snappea_task SET enqueued_at = '2026-01-01 00:00:00'")
    look()
    assert "Could not tell the alert" in caplog.text and "no mail server" in caplog.text
    settings.SNAPPEA = site.settings | {"ALERT": {"TO": NOTE, "BACKLOG": 1}}
    look()
    assert len(told(site)) == 1
    settings.SNAPPEA = dict(site.settings)  # without a recipient
    look()
    assert len(told(site)) == 1 and not UniqueUntil.objects.exists() and alerts.alert() == {}


def test_a_process_looks_seldom(site: Site, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "_look_at", time.monotonic() + 1000)
    settings.SNAPPEA = site.settings | {"ALERT": {"TO": NOTE}}
    alerts._after_enqueue(1)
    assert not UniqueUntil.objects.exists()
    monkeypatch.setattr(alerts, "_look_at", 0.0)
    alerts._after_enqueue(1)
    alerts._after_enqueue(2)
    assert UniqueUntil.objects.count() == 1 and alerts._look_at > time.monotonic()
