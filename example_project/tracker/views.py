"""The endpoint that receives events, and the page that shows the issues."""

import logging
import time
from typing import Any

from django.db import IntegrityError, OperationalError, transaction
from django.db.models import Count, Max, Min
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST, require_safe

from snappea.models import Status, Task

from .dsn import dsns, is_key_of, key_in
from .envelope import MAX_BYTES, Envelope, Refused, parse, unpack
from .models import Event, Issue
from .tasks import digest_event

logger = logging.getLogger(__name__)

CHUNK = 65_536
MAX_DISCARDED = 500 * CHUNK


@csrf_exempt
@require_POST
def receive_envelope(request: HttpRequest, project: int) -> JsonResponse:
    """Store an event, enqueue a task for the rest, and respond."""
    try:
        _check_key(request, project)
        envelope = parse(unpack(_read_body(request), request.headers.get("Content-Encoding", "")))
        _accept(project, envelope)
    except Refused as refusal:
        return JsonResponse({"detail": str(refusal)}, status=refusal.status)
    except OperationalError:
        logger.exception("An event could not be stored or enqueued; the client may send it again.")
        return JsonResponse({"detail": "Try again later."}, status=503)
    return JsonResponse({"id": envelope.event_id} if envelope.event_id else {})


def _check_key(request: HttpRequest, project: int) -> None:
    key = key_in(request.headers.get("X-Sentry-Auth", "")) or request.GET.get("sentry_key", "")
    if not key:
        raise Refused(401, "Send an X-Sentry-Auth header or a sentry_key.")
    if not is_key_of(project, key):
        raise Refused(403, "The project or its key is unknown.")


def _read_body(request: HttpRequest) -> bytes:
    """Read the body, up to a little more than the limit."""
    # Django reads nothing from a chunked body, which has no length; gunicorn knows where it ends
    is_terminated = request.META.get("wsgi.input_terminated")
    stream = request.META["wsgi.input"] if is_terminated else request
    try:
        body: bytes = stream.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            _discard_rest(stream)
    except Exception as error:  # the server has its own exception for a bad chunk
        raise Refused(400, "The body could not be read.") from error
    return body


def _discard_rest(stream: Any) -> None:
    """Read on, up to a limit: a client that still sends does not see the response."""
    for _ in range(MAX_DISCARDED // CHUNK):
        if not stream.read(CHUNK):
            return


def _accept(project: int, envelope: Envelope) -> None:
    if envelope.event is None:
        return
    try:
        with transaction.atomic():
            event = Event.objects.create(project=project, event_id=envelope.event_id, data=envelope.event)
    except IntegrityError:  # it was sent before
        event = Event.objects.get(project=project, event_id=envelope.event_id)
    if event.digested_at is None:  # also if it was stored, but this process died before it enqueued
        digest_event.delay_on_commit(event.pk, time.time())


@require_safe
def show_issues(request: HttpRequest) -> HttpResponse:
    """Show the issues and the state of the queue."""
    depth = dict(Task.objects.values_list("status").annotate(Count("pk")))
    shown = [status for status in Status if status in (Status.READY, Status.RUNNING) or status in depth]
    context = {
        "dsns": dsns(request.get_host()),
        "issues": Issue.objects.annotate(
            event_count=Count("events"),
            first_seen=Min("events__received_at"),
            last_seen=Max("events__received_at"),
        ).order_by("-event_count", "pk")[:100],
        "issue_count": Issue.objects.count(),
        "event_count": Event.objects.count(),
        "undigested_count": Event.objects.filter(issue=None).count(),
        "queue": [(status.label, depth.get(status, 0)) for status in shown],
    }
    return render(request, "tracker/issues.html", context)
