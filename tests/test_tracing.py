"""Sentry and OpenTelemetry, as their users have them: real SDKs in real processes."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django import VERSION

from example_project.tracker.envelope import parse, unpack
from example_project.tracker.grouping import subject_of
from snappea.models import Task
from snappea.monitoring.formatting import named_arguments
from tests.playground import coroutines, djangotasks, isolated, lifecycle, tasks
from tests.projects import Project
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

#: The project's telemetry and its own hooks, which work along with ours.
PROJECT = """
from contextlib import asynccontextmanager, contextmanager
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import {processor}, ConsoleSpanExporter
from django.conf import settings
from snappea import current_task

def exporter(kind, name):
    out = open(settings.DIR / name, "a", buffering=1)
    return kind(out=out, formatter=lambda found: found.to_json(indent=None) + chr(10))

provider = TracerProvider()
provider.add_span_processor({processor}(exporter(ConsoleSpanExporter, "spans")))
trace.set_tracer_provider(provider)
reader = PeriodicExportingMetricReader(exporter(ConsoleMetricExporter, "metrics"))
metrics.set_meter_provider(MeterProvider([reader]))
tracer = trace.get_tracer("mail")

def add(): return {{"_tenant": "t1"}}

def run(kwargs):
    trace.get_current_span().set_attribute("tenant", kwargs.pop("_tenant"))
    return (on_loop if current_task.name.endswith("record_async") else in_thread)()

@contextmanager
def in_thread():
    yield

@asynccontextmanager
async def on_loop():
    yield
"""
ENQUEUE = """
from mail.telemetry import tracer
import snappea
with tracer.start_as_current_span("request"):
    record.delay("x")
    enqueue_more.delay("more", 1)
    fail.delay("x")
    record_async.delay("async")
    isolated.know.delay(1)
    lifecycle.fail_sensitive.delay("hunter2")
    lifecycle.fail_until.delay("again", 2)
with tracer.start_as_current_span("bulk"):
    nothing.delay_many([()] * 3)
with tracer.start_as_current_span("batch"):
    with snappea.batch(on_success=echo.s(1).then(echo.s(2))):
        nothing.delay()
        echo.delay(key="value")
"""


SETTINGS_WITHOUT = """
SECRET_KEY = "only for tests"
INSTALLED_APPS = ["snappea"]
SQLITE = "django.db.backends.sqlite3"
DATABASES = {name: {"ENGINE": SQLITE, "NAME": f"/tmp/{name}.sqlite3"} for name in ("default", "snappea")}
DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]
SNAPPEA = {"OPENTELEMETRY": True}
"""
WITHOUT = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "opentelemetry" else find(name, *more)
"""


def exported(site: Site, name: str) -> list[dict[str, Any]]:
    path = site.directory / name
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def run_with_telemetry(site: Site, code: str, processor: str) -> list[dict[str, Any]]:
    """Run a program and a Foreman until the queue is empty, and return the spans."""
    package = site.directory / "mail"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "telemetry.py").write_text(PROJECT.format(processor=processor))
    site.variables["PYTHONPATH"] = f"{site.directory}:{ROOT}"
    site.settings |= {"OPENTELEMETRY": True, "HOOK_ADD_TASK_KWARGS": "mail.telemetry.add"}
    site.settings["HOOK_RUN_TASK_CONTEXT"] = "mail.telemetry.run"
    program = site.program("from tests.playground import isolated, lifecycle\n" + code)
    assert program.wait() == 0, program.output()
    foreman = site.foreman()
    wait_until(lambda: not {"ready", "running", "scheduled"} & set(site.counts()), f"{site.counts()}")
    assert foreman.stop() == 0
    return exported(site, "spans")


def named(spans: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return the spans with the name of a task, or with another name."""
    return [span for span in spans if span["name"].rpartition(".")[2].rpartition(" ")[2] == name]


def test_enqueue_and_run_are_one_trace(site: Site) -> None:
    spans = run_with_telemetry(site, ENQUEUE, "BatchSpanProcessor")
    (request,) = named(spans, "request")
    for name in ("record", "enqueue_more", "fail", "record_async", "know", "fail_sensitive"):
        (send,) = [span for span in named(spans, name) if span["parent_id"] == request["context"]["span_id"]]
        (run,) = [span for span in named(spans, name) if span["parent_id"] == send["context"]["span_id"]]
        assert (send["kind"], run["kind"]) == ("SpanKind.PRODUCER", "SpanKind.CONSUMER"), name
        assert {send["context"]["trace_id"], run["context"]["trace_id"]} == {request["context"]["trace_id"]}
        assert run["attributes"]["tenant"] == "t1" and run["attributes"]["snappea.task.attempt"] == 1
        assert run["attributes"]["messaging.message.id"] == send["attributes"]["messaging.message.id"]
        failed = "fail" in name
        assert (run["status"]["status_code"] == "ERROR") == failed
        assert run["attributes"].get("error.type") == ("ValueError" if failed else None)
        assert bool(run["events"]) == (name == "fail"), "of a sensitive task, only the kind of error is told"
    trace_id = request["context"]["trace_id"]
    who = [span for span in named(spans, "who") if span["context"]["trace_id"] == trace_id]
    assert sorted(span["name"].split()[0] for span in who) == ["process", "send"], "enqueued by another task"
    assert "hunter2" not in json.dumps(spans)
    record = [span for span in named(spans, "record") if span["attributes"]["messaging.message.id"] == "1"]
    assert max(record, key=lambda span: span["start_time"])["attributes"] == {
        "messaging.system": "snappea",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "default",
        "messaging.message.id": "1",
        "snappea.task.name": tasks.record.name,
        "snappea.task.attempt": 1,
        "tenant": "t1",
    }
    first, second = [span for span in named(spans, "fail_until") if span["kind"] == "SpanKind.CONSUMER"]
    assert first["status"]["status_code"] == "ERROR" and first["links"] == []
    assert second["parent_id"] is None and second["context"]["trace_id"] != trace_id
    link = second["links"][0]["context"]
    assert (link["trace_id"], link["span_id"]) == (first["context"]["trace_id"], first["parent_id"])
    rows = Task.objects.filter(status="failed")
    assert all("__trace__" in row.kwargs for row in rows)
    assert {*map(str, map(named_arguments, rows))} == {"[('key', '\"x\"'), ('_tenant', '\"t1\"')]", "[]"}


def test_calls_that_are_enqueued_together_have_one_span(site: Site) -> None:
    spans = run_with_telemetry(site, ENQUEUE, "SimpleSpanProcessor")
    runs = {"bulk": ["nothing"] * 3, "batch": ["echo", "echo", "echo", "nothing"]}
    for name, count in (("bulk", 3), ("batch", 2)):
        (outer,) = [span for span in named(spans, name) if span["kind"] == "SpanKind.INTERNAL"]
        inside = [span for span in spans if span["context"]["trace_id"] == outer["context"]["trace_id"]]
        (send,) = [span for span in inside if span["kind"] == "SpanKind.PRODUCER"]
        assert send["attributes"]["messaging.batch.message_count"] == count
        found = [span for span in inside if span["parent_id"] == send["context"]["span_id"]]
        assert sorted(span["name"].rpartition(".")[2] for span in found) == runs[name], (
            "what follows a batch, too"
        )
    sums: dict[str, int] = {}
    playground = "tests.playground."
    for line in exported(site, "metrics"):
        for metric in line["resource_metrics"][0]["scope_metrics"][0]["metrics"]:
            for point in metric["data"]["data_points"]:
                key = f"{metric['name']} {point['attributes']['snappea.task.name'].removeprefix(playground)}"
                sums[key] = sums.get(key, 0) + point.get("count", point.get("value", 0))
    assert sums["messaging.client.sent.messages tasks.nothing"] == 3
    assert sums["messaging.process.duration isolated.know"] == 1, "in a process of its own"
    assert sums["messaging.process.duration tasks.fail"] == 1


def test_a_missing_package_is_an_error_of_the_settings(tmp_path: Path) -> None:
    files = {"settings.py": SETTINGS_WITHOUT, "sitecustomize.py": WITHOUT}
    code, output = Project(tmp_path, files).try_to_run("django", "check")
    assert code and "snappea.E012" in output and "pip install 'django-snappea[opentelemetry]'" in output
