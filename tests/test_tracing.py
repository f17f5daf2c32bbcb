"""Sentry and OpenTelemetry, as their users have them: real SDKs in real processes."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django import VERSION

from example_project.tracker.envelope import parse, unpack
from example_project.tracker.grouping import subject_of
from tests.docs.blocks import BY_PAGE
from tests.playground import coroutines, djangotasks, isolated, lifecycle, tasks
from tests.site import ROOT, Process, Site, wait_until

Event = dict[str, Any]


class Receiver(ThreadingHTTPServer):
    """What Sentry's SDK sends its events to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.events: list[Event] = []
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()

    def wait_for(self, count: int) -> list[Event]:
        """Return so many events, in the order of their tasks."""
        wait_until(lambda: len(self.events) >= count, f"{count} events, not {len(self.events)}")
        return sorted(self.events, key=lambda event: str(event["extra"].get("task_id")))


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        envelope = parse(unpack(body, self.headers.get("Content-Encoding", "")))
        if envelope.event:
            self.server.events.append(json.loads(envelope.event))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.shutdown()
    receiver.thread.join()
    receiver.server_close()


def foreman_with_sentry(site: Site, receiver: Receiver, **options: Any) -> Process:
    port = receiver.server_address[1]
    code = "import sentry_sdk\n"
    code += (
        f"sentry_sdk.init(dsn='http://key@127.0.0.1:{port}/1', auto_session_tracking=False, **{options})\n"
    )
    code += "import os\nfrom sentry_sdk.integrations.logging import ignore_logger\n"
    code += "ignore_logger(os.environ.get('SENTRY_LEAVES_OUT', ''))\n"
    code += "from django.core.management import call_command\ncall_command('runsnappea')\n"
    foreman = site.program(code)
    foreman.wait_for_output("tasks ready")
    return foreman


def functions(event: Event) -> list[str]:
    return [frame["function"] for frame in event["exception"]["values"][-1]["stacktrace"]["frames"]]


def test_failures_are_events_grouped_by_task(site: Site, receiver: Receiver) -> None:
    foreman = foreman_with_sentry(site, receiver)
    tasks.record.delay("fine")
    tasks.fail.delay("one")
    tasks.fail.delay("two")
    tasks.raise_it.delay("ValueError")
    first, second, other = receiver.wait_for(3)
    assert foreman.stop() == 0
    assert len(receiver.events) == 3, "each is told once, and what succeeds not at all"
    assert functions(first)[-1] == functions(second)[-1] == "fail" and functions(other)[-1] == "raise_it"
    assert subject_of(first)[:2] == subject_of(second)[:2] != subject_of(other)[:2], "as issues"
    assert [event["extra"]["task_id"] for event in (first, second, other)] == [2, 3, 4]
    assert first["extra"]["task_name"] == tasks.fail.name
    assert (first["level"], first["logger"]) == ("error", "snappea.foreman")
    templates = [event["logentry"]["message"] for event in (first, second, other)]
    assert templates[0] == templates[1] != templates[2], "and what groups by messages does so as well"
    assert templates[0] == "Failed tests.playground.tasks.fail%s #%d after %.3f s: %s"
    assert first["exception"]["values"][-1]["value"] == "no luck with one"


def test_what_is_tried_again_is_no_event(site: Site, receiver: Receiver) -> None:
    foreman = foreman_with_sentry(site, receiver)
    lifecycle.fail_until.delay("x", 2)
    wait_until(lambda: "Finished tests.playground.lifecycle.fail_until" in foreman.output())
    tasks.fail.delay("x")
    receiver.wait_for(1)
    assert foreman.stop() == 0
    assert [event["extra"]["task_name"] for event in receiver.events] == [tasks.fail.name]


def test_the_other_kinds_of_tasks(site: Site, receiver: Receiver) -> None:
    """On the event loop; in a process of its own, which waits until that is sent; killed; unknown."""
    foreman = foreman_with_sentry(site, receiver)
    site.sql("INSERT INTO snappea_task (task_name, enqueued_at) VALUES ('shop.tasks.gone', '2020-01-01')")
    coroutines.fail.delay("x")
    isolated.fail.delay("x")
    isolated.die.delay("x", "kill")
    unknown, on_loop, apart, killed = receiver.wait_for(4)
    assert unknown["exception"]["values"][-1]["type"] == "UnknownTask"
    assert functions(on_loop)[-1] == "fail" and functions(apart)[-1] == "fail"
    assert killed["exception"]["values"][-1]["type"] == "TaskKilled"
    assert foreman.stop() == 0
    assert len(receiver.events) == 4


def test_nothing_is_told_of_a_sensitive_task_but_that_it_failed(site: Site, receiver: Receiver) -> None:
    foreman = foreman_with_sentry(site, receiver, include_local_variables=True)
    lifecycle.fail_sensitive.delay("hunter2")
    (event,) = receiver.wait_for(1)
    assert foreman.stop() == 0
    assert "hunter2" not in json.dumps(event) and "hunter2" not in foreman.output()
    assert event["extra"]["task_name"] == lifecycle.fail_sensitive.name and "exception" not in event
    assert "ValueError: (not shown" in event["logentry"]["formatted"]


@pytest.mark.parametrize("is_left_out", [False, True])
def test_a_failure_of_django_tasks_is_told_by_django_as_well(
    site: Site, receiver: Receiver, is_left_out: bool
) -> None:
    loggers = {"snappea.foreman", "django.tasks" if VERSION >= (6, 0) else "django_tasks"}
    site.variables["SENTRY_LEAVES_OUT"] = max(loggers - {"snappea.foreman"}) if is_left_out else ""
    foreman = foreman_with_sentry(site, receiver)
    djangotasks.fail.enqueue("x")
    expected = ["snappea.foreman"] if is_left_out else sorted(loggers)

    def told() -> list[str]:
        """Leave out django.dispatch: a receiver of the playground's raises."""
        return sorted(event["logger"] for event in receiver.events if event["logger"] in loggers)

    wait_until(lambda: told() == expected, str(expected))
    site.wait_until_empty()
    assert foreman.stop() == 0
    assert told() == expected


# OpenTelemetry

EXPORTER = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import {processor}, ConsoleSpanExporter
from django.conf import settings

provider = TracerProvider()
exporter = ConsoleSpanExporter(
    out=open(settings.DIR / "spans", "a", buffering=1),
    formatter=lambda span: span.to_json(indent=None) + chr(10),
)
provider.add_span_processor({processor}(exporter))
trace.set_tracer_provider(provider)
"""
ENQUEUE = """
from mail.tracing import tracer
with tracer.start_as_current_span("request"):
    record.delay("x")
    enqueue_more.delay("more", 1)
    fail.delay("x")
    record_async.delay("async")
    isolated.know.delay(1)
record.delay("alone")
"""


def spans(site: Site) -> list[dict[str, Any]]:
    path = site.directory / "spans"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("processor", ["SimpleSpanProcessor", "BatchSpanProcessor"])
def test_enqueue_and_run_are_one_trace(site: Site, processor: str) -> None:
    """With exactly the code that stands in the manual."""
    blocks = {block.title: block.text for block in BY_PAGE["how-to/trace.md"]}  # of one title: the last one
    package = site.directory / "mail"
    package.mkdir()
    (package / "__init__.py").touch()
    Path(package / "tracing.py").write_text(EXPORTER.format(processor=processor) + blocks["mail/tracing.py"])
    site.variables["PYTHONPATH"] = f"{site.directory}:{ROOT}"
    site.settings |= dict(re.findall(r'SNAPPEA\["(.*)"\] = "(.*)"', blocks["settings.py"]))
    foreman = site.foreman()
    assert site.program(ENQUEUE).wait() == 0
    site.wait_until_empty()
    assert foreman.stop() == 0
    found = {
        span["name"].rpartition(".")[2]: span for span in spans(site) if span["name"] != tasks.record.name
    }
    records = [span for span in spans(site) if span["name"] == tasks.record.name]
    request = found.pop("request")
    trace_id, span_id = request["context"]["trace_id"], request["context"]["span_id"]
    assert set(found) == {"enqueue_more", "fail", "record_async", "know", "who"} and len(records) == 3
    children = {name: found[name] for name in ("enqueue_more", "fail", "record_async", "know")}
    assert {span["context"]["trace_id"] for span in children.values()} == {trace_id}
    assert {span["parent_id"] for span in children.values()} == {span_id}
    assert all(span["kind"] == "SpanKind.CONSUMER" for span in children.values())
    assert found["who"]["parent_id"] == found["know"]["context"]["span_id"], "it was enqueued by that task"
    assert found["who"]["context"]["trace_id"] == trace_id
    statuses = {name: span["status"]["status_code"] for name, span in found.items()}
    assert statuses.pop("fail") == "ERROR" and set(statuses.values()) == {"UNSET"}
    parents = {span["parent_id"]: span["context"]["trace_id"] for span in records}
    assert parents.pop(span_id) == parents.pop(found["enqueue_more"]["context"]["span_id"]) == trace_id
    assert parents.pop(None) != trace_id, "what was enqueued outside of it has a trace of its own"
