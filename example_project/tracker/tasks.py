"""What is done once the client has its answer.

Each write is a statement of its own, so that SQLite's write lock is never held while Python
runs: that costs more, in a spike, than all the rest. Events are counted where they are shown,
and a count that nobody keeps cannot be wrong.
"""

import json
import time

from django.core.mail import mail_admins
from django.utils import timezone

from snappea import task

from .grouping import subject_of
from .models import Event, Issue


@task(acks_late=True)  # digesting twice is digesting once, so it may be repeated
def digest_event(event_pk: int, asked_at: float) -> None:
    """Assign an event to its issue. `asked_at` is when delay() was called, in time.time()."""
    waited = time.time() - asked_at
    event = Event.objects.get(pk=event_pk)
    kind, place, message = subject_of(json.loads(event.data))
    issue, _is_new = Issue.objects.get_or_create(
        project=event.project,
        kind=kind,
        place=place,
        defaults={"message": message, "first_event": event},
    )
    undigested = Event.objects.filter(pk=event.pk, issue=None)
    undigested.update(issue=issue, digested_at=timezone.now(), waited=waited)
    if issue.mailed_at is None and issue.first_event == event:
        mail_about_issue.delay_on_commit(issue.pk)


@task  # without acks_late: whether a mail that was cut off is sent again, a person decides
def mail_about_issue(issue_pk: int) -> None:
    """Tell the admins about a new issue."""
    issue = Issue.objects.select_related("first_event").get(pk=issue_pk)
    if issue.mailed_at is not None:
        return
    mail_admins(
        f"New issue in project {issue.project}: {issue}"[:200],
        f"{issue.kind}: {issue.message}\nin {issue.place}\n"
        f"first seen at {issue.first_event.received_at:%Y-%m-%d %H:%M:%S} UTC\n",
    )
    Issue.objects.filter(pk=issue.pk).update(mailed_at=timezone.now())


@task
def do_nothing() -> None:
    """Show how fast the queue is without HTTP and without work to do."""
