"""The example project: a small error tracker, from the envelope to the mail."""

import gzip
import json
import os
import re
import subprocess
import sys
import threading
import uuid
import zlib
from typing import Any

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from django.core.management.base import OutputWrapper
from django.db import connections
from django.test import Client

from example_project.demo.progress import style_for
from example_project.tracker.envelope import MAX_BYTES
from example_project.tracker.management.commands import demo
from example_project.tracker.models import Event, Issue
from example_project.tracker.tasks import digest_event, mail_about_issue
from snappea.models import Task
from snappea.queue.clock import now
from snappea.queue.database import connect, raw
from snappea.queue.store import claim, settle
from snappea.workers import execute
from snappea.workers.limits import TaskHandle
from tests.site import DEADLINE, ROOT, Site


def event(event_id: str | None = None, kind: str = "ValueError", function: str = "pay") -> dict[str, Any]:
    frames = [
        {"module": "django.core", "function": "get_response", "in_app": False},
        {"module": "shop.views", "function": function, "in_app": True},
        {"module": "decimal", "function": "__new__", "in_app": False},
    ]
    exception = {"values": [{"type": kind, "value": "<b>no luck</b>", "stacktrace": {"frames": frames}}]}
    return {"event_id": event_id or uuid.uuid4().hex, "exception": exception}


def envelope(*items: tuple[str, Any]) -> bytes:
    lines = [json.dumps({"event_id": items[0][1].get("event_id")} if items else {})]
    for kind, payload in items:
        text = json.dumps(payload)
        lines += [json.dumps({"type": kind, "length": len(text)}), text]
    return "\n".join(lines).encode()


def post(body: bytes, project: int = 1, key: str = "a-key", encoding: str = "") -> Any:
    auth = {"x-sentry-auth": f"Sentry sentry_version=7, sentry_key={key}"} if key else {}
    return Client().post(
        f"/api/{project}/envelope/",
        body,
        content_type="application/x-sentry-envelope",
        headers={**auth, "content-encoding": encoding},
    )


def work_off() -> None:
    """Run what is in the queue, in this thread, until there is nothing."""
    db = raw(connect())
    while claims := claim(db, now(connect()), 10, {"default": 10}):
        outcomes = [execute.execute(claimed, TaskHandle()) for claimed in claims]
        assert [outcome.error for outcome in outcomes] == [""] * len(outcomes)
        settle(db, now(connect()), outcomes)


def test_an_event_is_stored_answered_and_digested_later(site: Site) -> None:
    sent = event()
    answer = post(gzip.compress(envelope(("event", sent))), encoding="gzip")
    assert (answer.status_code, answer.json()) == (200, {"id": sent["event_id"]})
    assert json.loads(Event.objects.get().data) == sent and Issue.objects.count() == 0
    assert list(Task.objects.values_list("task_name", flat=True)) == [digest_event.name]
    work_off()
    issue = Issue.objects.get()
    assert (issue.kind, issue.place, issue.events.count()) == ("ValueError", "shop.views.pay", 1)
    assert issue.mailed_at and len(mail.outbox) == 1
    assert (
        mail.outbox[0].to == ["admin@localhost"] and "ValueError in shop.views.pay" in mail.outbox[0].subject
    )


def test_events_are_grouped_by_type_and_place(site: Site) -> None:
    for kind, function in (
        ("ValueError", "pay"),
        ("ValueError", "pay"),
        ("KeyError", "pay"),
        ("ValueError", "ship"),
    ):
        assert post(envelope(("event", event(kind=kind, function=function)))).status_code == 200
    work_off()
    counts = {(issue.kind, issue.place): issue.events.count() for issue in Issue.objects.all()}
    assert counts == {
        ("ValueError", "shop.views.pay"): 2,
        ("KeyError", "shop.views.pay"): 1,
        ("ValueError", "shop.views.ship"): 1,
    }
    assert len(mail.outbox) == 3


def test_an_event_that_is_sent_or_digested_twice_counts_once(site: Site) -> None:
    sent = envelope(("event", event()))
    assert [post(sent).status_code for _ in range(2)] == [200, 200]
    work_off()
    post(sent)
    work_off()
    digest_event(Event.objects.get().pk, 0.0)
    mail_about_issue(Issue.objects.get().pk)
    work_off()
    assert Event.objects.count() == Issue.objects.count() == len(mail.outbox) == 1


def test_events_of_a_new_issue_digested_at_once_make_one_issue(site: Site) -> None:
    for _ in range(6):
        post(envelope(("event", event())))
    failures: list[BaseException] = []

    def digest(pk: int) -> None:
        try:
            connections["default"].settings_dict["OPTIONS"]["timeout"] = 60
            digest_event(pk, 0.0)
        except BaseException as failure:
            failures.append(failure)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=digest, args=(stored.pk,)) for stored in Event.objects.all()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    del connections["default"].settings_dict["OPTIONS"]["timeout"]
    assert not failures
    assert Issue.objects.count() == 1 and Issue.objects.get().events.count() == 6


@pytest.mark.parametrize("kind", ["session", "transaction", "client_report", "attachment"])
def test_items_that_are_no_events_are_accepted_and_ignored(site: Site, kind: str) -> None:
    assert post(envelope((kind, {"x": 1}))).status_code == 200
    assert Event.objects.count() == Task.objects.count() == 0


GOOD = event(event_id="0" * 32)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"nonsense", 400),
        (b"[]\n", 400),
        (b"{}\n{", 400),
        (b'{}\n{"type":"event","length":99}\n{}', 400),
        (b'{}\n{"type":"event","length":-1}\n{}', 400),
        (b'{"event_id":"nonsense"}\n{"type":"event","length":2}\n{}', 400),
        (b'{}\n{"type":"event"}\nnonsense', 400),
        (envelope(("event", GOOD), ("event", GOOD)), 400),
        (b"{}\n" + b"x" * MAX_BYTES, 413),
        (b"\xff\xfe", 400),
        (b'{"a":' * 100_000, 400),
    ],
)
def test_what_is_malformed_is_refused_and_nothing_is_stored(site: Site, body: bytes, status: int) -> None:
    answer = post(body)
    assert answer.status_code == status and answer.json()["detail"]
    assert Event.objects.count() == Task.objects.count() == 0


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (b"no gzip", "gzip", 400),
        (gzip.compress(envelope(("event", GOOD)))[:-5], "gzip", 400),
        (gzip.compress(bytes(300_000_000), 1), "gzip", 413),
        (zlib.compress(envelope(("event", GOOD))), "deflate", 200),
        (b"x", "br", 415),
    ],
)
def test_encodings(site: Site, body: bytes, encoding: str, status: int) -> None:
    assert post(body, encoding=encoding).status_code == status


def test_keys(site: Site) -> None:
    body = envelope(("event", event()))
    assert post(body, key="").status_code == 401
    assert post(body, key="wrong").status_code == 403
    assert post(body, project=2).status_code == 403
    path = "/api/1/envelope/"
    assert Client().post(f"{path}?sentry_key=a-key", body, content_type="text/plain").status_code == 200
    assert Client().get(path).status_code == 405


def test_where_nothing_can_be_enqueued_the_sender_is_told(site: Site) -> None:
    site.sql("DROP TABLE snappea_task")
    assert post(envelope(("event", event()))).status_code == 503


def test_the_page_shows_issues_and_the_queue_as_text(site: Site) -> None:
    for _ in range(2):
        post(envelope(("event", event())))
    work_off()
    post(envelope(("event", event())))
    page = Client().get("/").content.decode()
    assert "ValueError" in page and "shop.views.pay" in page and "Pending" in page
    assert "&lt;b&gt;no luck&lt;/b&gt;" in page and "<b>no luck" not in page
    assert 'http-equiv="refresh"' in page and "sentry_sdk.init" in page
    assert "<strong>Snappea</strong>" in page and 'href="/admin/snappea/dashboard/"' in page
    assert Client().get("/admin/snappea/dashboard/").status_code == 302, "to the login"


def test_the_demo_is_colored_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "TERM", "DJANGO_COLORS"):
        monkeypatch.delenv(name, raising=False)
    master, terminal = os.openpty()
    with os.fdopen(terminal, "w") as out, open(os.devnull, "w") as file:
        assert style_for(OutputWrapper(out)).SUCCESS("x") == "\x1b[32;1mx\x1b[0m"
        assert style_for(OutputWrapper(file)).SUCCESS("x") == "x"
        assert style_for(OutputWrapper(file), True).SUCCESS("x") != "x"
        assert style_for(OutputWrapper(out), False).SUCCESS("x") == "x"
        monkeypatch.setenv("NO_COLOR", "1")
        assert style_for(OutputWrapper(out)).SUCCESS("x") == "x"
    os.close(master)


def test_the_demo_names_the_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "NEEDED", {"gunicorn": "gunicorn", "no_such_module": "sentry-sdk"})
    with pytest.raises(
        CommandError, match=r"needs sentry-sdk\. Run, in the clone: .* install -e '\.\[example\]'"
    ):
        call_command("demo")


@pytest.mark.long
def test_the_demo(site: Site) -> None:
    environment = {**os.environ, "EXAMPLE_DATA_DIR": str(site.directory / "data")}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run(
        [sys.executable, "manage.py", "demo", "--once", "--events", "200"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 lost" in done.stdout and "Everything has stopped." in done.stdout
    figures = dict(re.findall(r"^  (\w[\w /,]+?)  +(\S+)$", done.stdout, re.MULTILINE))
    assert figures["events sent"] == figures["events digested"] == "200" and figures["tasks left"] == "0"
    assert figures["issues"] == figures["mails written"] != "0"
    assert f"Why {figures['requests/s']} requests/s: this measures gunicorn and real HTTP" in done.stdout
    assert f"runs {figures['queue alone, tasks/s']} tasks/s" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Snappea: 200 of 200 events digested, 0 lost")
    assert "\x1b" not in done.stdout
