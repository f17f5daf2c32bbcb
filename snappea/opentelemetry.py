"""OpenTelemetry: spans and metrics for calls that are enqueued and tasks that run.

The app registers it if SNAPPEA["OPENTELEMETRY"] is True. A call carries its trace in its row, as a keyword
argument that `decode()` removes, so that neither the task nor the admin sees it.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import metrics, propagate, trace

from . import __version__, conf
from .errors import Retry, running_loop
from .queue.callbacks import AWAITS_RESULT, packed, unpacked
from .queue.records import Call
from .tasks import calls, context, engine
from .tasks.arguments import TRACE
from .tasks.discovery import find
from .tasks.function import is_sensitive

_tracer = trace.get_tracer("snappea", __version__)
_meter = metrics.get_meter("snappea", __version__)
_sent = _meter.create_counter("messaging.client.sent.messages", "{message}", "Calls that were enqueued.")
_duration = _meter.create_histogram("messaging.process.duration", "s", "How long tasks ran.")


def register() -> None:
    """Trace the calls of this process and the tasks that it runs."""
    engine.register("snappea", TracedEngine())
    conf.wrappers["HOOK_RUN_TASK_CONTEXT"] = _around
    conf.hook.cache_clear()


def _facts(operation: str, queue: str, task_name: str) -> dict[str, Any]:
    """Return the attributes that spans and metrics share."""
    kinds = {"messaging.operation.name": operation, "messaging.operation.type": operation}
    names = {"messaging.destination.name": queue, "snappea.task.name": task_name}
    return {"messaging.system": "snappea", **kinds, **names}


@contextmanager
def _span(name: str, facts: dict[str, Any], is_sensitive: bool, **options: Any) -> Iterator[trace.Span]:
    """Open a span. An error marks it, and is added to `facts`. `is_sensitive`: without the error's text."""
    options |= {"record_exception": False, "set_status_on_exception": False}
    with _tracer.start_as_current_span(name, **options) as span:
        try:
            yield span
        except BaseException as raised:
            error = context.cause_of(raised)
            if not isinstance(error, Retry):  # which only asks for another run
                kind = type(error)
                module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
                facts["error.type"] = f"{module}{kind.__qualname__}"
                span.set_attribute("error.type", facts["error.type"])
                span.set_status(trace.StatusCode.ERROR, kind.__name__)
                if not is_sensitive:
                    span.record_exception(error)
            raise


# enqueue

#: What the engine returns for each call, and what lets a call carry the trace.
Written = list[tuple[int, bool]]
Carry = Callable[[Call], Call]


def _send(sent: Sequence[Call], write: Callable[[Carry], Written]) -> Written:
    """Write calls within one span."""
    names = sorted({call.task_name for call in sent})
    facts = _facts("send", ",".join(sorted({call.queue for call in sent})), ",".join(names))
    count, name = len(sent), f"send {names[0] if len(names) == 1 else 'batch'}"
    own = {"messaging.batch.message_count": count} if count > 1 else {}
    hides = any(call.extras and call.extras.is_sensitive for call in sent)
    options = {"kind": trace.SpanKind.PRODUCER, "attributes": facts | own}
    try:
        with _span(name, facts, hides, **options) as span:
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            written = write(lambda call: _carrying(call, carrier) if carrier else call)
            if len(written) == 1:
                span.set_attribute("messaging.message.id", str(written[0][0]))
            count = sum(is_new for _call_id, is_new in written)
            return written
    finally:
        _sent.add(count, facts)


def _carrying(call: Call, carrier: dict[str, str]) -> Call:
    before = "{" if call.kwargs == "{}" else f"{call.kwargs[:-1]}, "
    return call._replace(kwargs=f'{before}"{TRACE}": {json.dumps(carrier)}}}')


def _callback(text: str | None, carry: Carry) -> str | None:
    """Return a packed call, and those that follow it, with the trace."""
    if text is None:
        return None
    call, then = unpacked(text)
    return packed(carry(call), _callback(then, carry), text.startswith(AWAITS_RESULT))


class TracedEngine(engine.TableEngine):
    """Writes calls to the queue's table, each within a span; many at once within one."""

    def enqueue(self, call: Call, moment: str | None = None) -> tuple[int, bool]:
        """Write a call."""
        return _send([call], lambda carry: [engine.TABLE.enqueue(carry(call), moment)])[0]

    def enqueue_many(self, calls: Sequence[Call]) -> Written:
        """Write many calls."""
        return _send(calls, lambda carry: engine.TABLE.enqueue_many(list(map(carry, calls))))

    def submit_batch(self, collector: Any) -> None:
        """Write the rows of a batch. Its callbacks carry the same trace."""
        plans = list(collector.plan.family())

        def write(carry: Carry) -> Written:
            for plan in plans:
                plan.members = [(carry(call), *caller) for call, *caller in plan.members]
                plan.callbacks = tuple(_callback(text, carry) for text in plan.callbacks)
            engine.TABLE.submit_batch(collector)
            return [one for plan in plans for one in plan.written]

        _send([call for plan in plans for call, *_caller in plan.members], write)


# run


def _around(inner: Callable[[dict[str, Any]], Any] | None) -> Callable[[dict[str, Any]], Any]:
    """Return a hook that opens a span around a task and around the project's own hook."""

    @contextmanager
    def run(kwargs: dict[str, Any]) -> Iterator[None]:
        with _process(), inner(kwargs):  # type: ignore[misc]  # not None here
            yield

    @asynccontextmanager
    async def run_on_loop(kwargs: dict[str, Any]) -> Any:
        with _process():
            async with calls.entered(inner(kwargs)):  # type: ignore[misc]  # not None here
                yield

    if inner is None:
        return lambda kwargs: _process()
    return lambda kwargs: run(kwargs) if running_loop() is None else run_on_loop(kwargs)


@contextmanager
def _process() -> Iterator[None]:
    """Open the span of the task that runs here. A retry has a trace of its own, linked to the enqueue."""
    claim = context.current_claim()
    assert claim
    carrier = json.loads(claim.kwargs).get(TRACE) if f'"{TRACE}"' in claim.kwargs else None
    # anything else was edited by hand
    parent = propagate.extract(carrier) if isinstance(carrier, dict) else contexts.get_current()
    producer, links = trace.get_current_span(parent).get_span_context(), []
    if claim.attempts > 1:
        links = [trace.Link(producer)] if producer.is_valid else []
        parent = trace.set_span_in_context(trace.INVALID_SPAN, parent)
    facts, began = _facts("process", claim.queue, claim.task_name), time.monotonic()
    own = {"messaging.message.id": str(claim.id), "snappea.task.attempt": claim.attempts}
    hides = is_sensitive(claim, find(claim.task_name))
    options = {"context": parent, "kind": trace.SpanKind.CONSUMER, "attributes": facts | own, "links": links}
    try:
        with _span(f"process {claim.task_name}", facts, hides, **options):
            yield
    finally:
        _duration.record(time.monotonic() - began, facts)
