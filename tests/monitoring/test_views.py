"""Health and metrics: their content, and which requests may see it."""

import json
import re
import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.http import HttpResponse, HttpResponseRedirect
from django.test import RequestFactory

from snappea.health import health
from snappea.metrics import metrics
from snappea.models import Task
from snappea.queue import operations
from snappea.tasks.function import task
from tests.playground.tasks import fail, nap, record
from tests.site import Made, Site, wait_until

VIEWS = pytest.mark.parametrize("view", [health, metrics])


def ask(view: Any, token: str = "", user: Any = None, method: str = "get") -> HttpResponse:
    headers = {"Authorization": token} if token else {}
    request = getattr(RequestFactory(), method)("/", headers=headers)
    if user:
        request.user = user
    response: HttpResponse = view(request)
    return response


@pytest.fixture(autouse=True)
def public(site: Site, settings: Any) -> None:
    site.settings["MONITORING_IS_PUBLIC"] = True
    settings.SNAPPEA = dict(site.settings)


# permissions


@VIEWS
def test_nobody_is_told_unless_the_settings_say_so(site: Site, settings: Any, view: Any) -> None:
    settings.SNAPPEA = {}
    refused = ask(view)
    assert refused.status_code == 403 and b"MONITORING_TOKEN" in refused.content
    assert ask(view, "Bearer ").status_code == ask(view, "Bearer None").status_code == 403
    assert ask(view, user=AnonymousUser()).status_code == 403


@VIEWS
@pytest.mark.parametrize(
    ("header", "is_told"),
    [
        ("Bearer s3cret", True),
        ("bearer  s3cret ", True),
        ("Bearer s3cre", False),
        ("Bearer", False),
        ("Basic s3cret", False),
        ("s3cret", False),
        ("Bearer ümläut", False),
    ],
)
def test_a_bearer_token(site: Site, settings: Any, view: Any, header: str, is_told: bool) -> None:
    settings.SNAPPEA = {"MONITORING_TOKEN": "s3cret"}
    assert (ask(view, header).status_code == 403) != is_told


@VIEWS
@pytest.mark.parametrize(("codename", "is_told"), [("change_task", True), ("delete_task", False)])
def test_the_admin_and_the_views_ask_for_the_same_permission(
    site: Site, settings: Any, view: Any, codename: str, is_told: bool
) -> None:
    """As in Django, the permission to change tasks includes viewing them."""
    settings.SNAPPEA = {}
    staff = User.objects.create_user("staff", is_staff=True)
    staff.user_permissions.add(Permission.objects.get(codename=codename))
    assert (ask(view, user=User.objects.get()).status_code != 403) == is_told


@VIEWS
def test_staff_who_may_view_tasks(site: Site, settings: Any, view: Any) -> None:
    settings.SNAPPEA = {}
    staff = User.objects.create_user("staff", is_staff=True)
    assert ask(view, user=staff).status_code == 403
    staff.user_permissions.add(Permission.objects.get(codename="view_task"))
    staff = User.objects.get()
    assert ask(view, user=staff).status_code != 403
    staff.is_active = False
    assert ask(view, user=staff).status_code == 403


@VIEWS
def test_only_looking_is_allowed(site: Site, view: Any) -> None:
    assert ask(view, method="post").status_code == 405
    assert "no-store" in ask(view)["Cache-Control"]


@VIEWS
def test_no_login_is_asked_for(site: Site, settings: Any, view: Any) -> None:
    settings.SNAPPEA = {"MONITORING_TOKEN": "s3cret"}
    request = RequestFactory().get("/")
    request.user = AnonymousUser()
    middleware = LoginRequiredMiddleware(view)
    assert middleware.process_view(request, view, (), {}) is None
    assert isinstance(middleware.process_view(request, ask, (), {}), HttpResponseRedirect)


# health


def test_health(site: Site) -> None:
    response = ask(health)
    assert response.status_code == 503
    data = json.loads(response.content)
    assert data["foremen"] == [] and "No Foreman runs" in data["warnings"][0]
    foreman = site.foreman()
    fail.delay("x")
    wait_until(lambda: site.counts() == {"failed": 1})
    response = ask(health)
    assert response.status_code == 200 and response["Content-Type"] == "application/json"
    data = json.loads(response.content)
    assert data["foremen"][0]["pid"] == foreman.pid and data["counts"]["failed"] == 1
    assert data["oldest"] is None and data["warnings"] == []


def test_a_task_that_waits_too_long(site: Site) -> None:
    site.foreman("--queues", "other")
    record.delay(1)
    assert ask(health).status_code == 200
    Task.objects.update(enqueued_at=datetime.now(UTC) - timedelta(seconds=100))
    response = ask(health)
    assert response.status_code == 503
    assert 99 < json.loads(response.content)["oldest"] < 200
    operations.pause("default")
    assert ask(health).status_code == 200, "somebody wants it to wait"


@VIEWS
def test_a_queue_that_cannot_be_read(site: Site, view: Any) -> None:
    site.sql("ALTER TABLE snappea_task RENAME TO gone")
    response = ask(view)
    assert response.status_code == 503
    assert b"is damaged: it has no table snappea_task. Restore a backup" in response.content


# metrics


def samples(text: str) -> dict[str, float]:
    """Return the samples of a page, which must be valid for Prometheus."""
    found = {}
    kind = ""
    for line in text.splitlines():
        if head := re.fullmatch(r"# TYPE (snappea_[a-z_]+) (gauge|counter|summary)", line):
            kind = head[1]
        elif not line.startswith("# HELP snappea_"):
            sample = re.fullmatch(r'(([a-z_]+)(?:\{(?:[a-z_]+="(?:[^"\\]|\\.)*",?)*\})?) (\S+)', line)
            assert sample and sample[2].startswith(kind), line
            assert sample[1] not in found, "each sample once"
            found[sample[1]] = float(sample[3])
    assert text.endswith("\n")
    return found


def page() -> dict[str, float]:
    response = ask(metrics)
    assert response.status_code == 200 and response["Content-Type"].startswith("text/plain; version=0.0.4")
    return samples(response.content.decode())


def test_metrics(site: Site) -> None:
    assert page()["snappea_foreman_up"] == 0
    operations.pause("mail")
    foreman = site.foreman(NUM_WORKERS=3)
    for number in range(5):
        record.delay(number)
    fail.delay("x")
    record.apply_async((1,), queue="mail")
    nap.delay("nap", 60)
    wait_until(lambda: site.counts() == {"failed": 1, "ready": 1, "running": 1})
    wait_until(lambda: site.ledger.count("start", "nap"))
    found = page()
    assert found["snappea_foreman_up"] == 1 and found["snappea_workers"] == 3
    assert found['snappea_tasks{status="failed"}'] == 1
    assert found['snappea_queue_tasks{queue="mail",state="ready"}'] == 1
    assert found['snappea_queue_tasks{queue="default",state="running"}'] == 1
    assert found['snappea_queue_paused{queue="mail"}'] == 1
    who = f'{{host="{socket.gethostname()}",pid="{foreman.pid}"}}'
    assert found[f"snappea_foreman_memory_bytes{who}"] > 1e6
    foreman.kill()  # what is not written is lost, and harms nothing
    foreman = site.foreman("--queues", "other")
    assert foreman.stop() == 0


def test_totals_never_sink(site: Site) -> None:
    """They are written every minute and when a Foreman stops, and outlive the rows of Stat."""
    for rounds in (1, 2):
        foreman = site.foreman(STATS_RETENTION_MINUTES=1)
        for number in range(3):
            record.delay(number)
        fail.delay("x")
        site.wait_until_empty()
        assert foreman.stop() == 0
        found = page()
        assert found[f'snappea_ended_total{{task="{record.name}",how="done"}}'] == 3 * rounds
        assert found[f'snappea_ended_total{{task="{fail.name}",how="failed"}}'] == rounds
        assert found[f'snappea_run_seconds_count{{task="{record.name}"}}'] == 3 * rounds
        assert found[f'snappea_run_seconds_sum{{task="{record.name}"}}'] > 0
        assert found[f'snappea_wait_seconds_sum{{task="{record.name}"}}'] > 0
        site.sql("UPDATE snappea_stat SET minute = datetime(minute, '-1 day')")


def test_names_that_need_quotes(site: Site, made: Made) -> None:
    @task(name="tests.made.quoted", queue='a "b"\\\n')
    def quoted() -> None: ...

    quoted.delay()
    assert page()[r'snappea_queue_tasks{queue="a \"b\"\\\n",state="ready"}'] == 1
