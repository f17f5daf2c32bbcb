"""The tasks: what happens after the client has its response.

Each write is one statement, so that SQLite's write lock is not held while Python runs: in a spike that
would cost more than everything else. Events are counted when they are shown, so no stored count can be
wrong.
"""

import json
import time

from django.core.mail import mail_admins
from django.utils import timezone

from snappea import task

from .grouping import subject_of
from .models import Event, Issue


@task(acks_late=True)  # it may run twice: the second run changes nothing
def digest_event(event_pk: int, asked_at: float) -> None:
    """Assign an event to its issue. `asked_at`: when delay() was called, by time.time()."""
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


@task  # without acks_late: after an interruption a person decides whether to send the mail again
def mail_about_issue(issue_pk: int) -> None:
    """Mail the admins about a new issue."""
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
    """Do nothing: the demo measures the queue alone with it."""
