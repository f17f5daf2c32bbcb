"""Events as they were received, and the issues that they belong to."""

from typing import ClassVar

from django.db import models


class Issue(models.Model):
    """All events of a project with the same type of exception, raised at the same place."""

    project = models.PositiveIntegerField()
    kind = models.CharField(max_length=200)
    place = models.CharField(max_length=300)
    #: The message of its first event.
    message = models.CharField(max_length=500)
    #: The event for which the issue was created. Its task enqueues the mail.
    first_event = models.OneToOneField("Event", on_delete=models.CASCADE, related_name="+")
    mailed_at = models.DateTimeField(null=True)

    objects: ClassVar[models.Manager["Issue"]]

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "kind", "place"], name="one_issue")]

    def __str__(self) -> str:
        return f"{self.kind} in {self.place}"


class Event(models.Model):
    """An event, as a client sent it."""

    project = models.PositiveIntegerField()
    event_id = models.CharField(max_length=32)
    #: The event's JSON.
    data = models.TextField()
    received_at = models.DateTimeField(auto_now_add=True)

    #: Null until it is digested.
    issue = models.ForeignKey(Issue, on_delete=models.CASCADE, null=True, related_name="events")
    digested_at = models.DateTimeField(null=True)
    #: The seconds from delay() to the first line of the task.
    waited = models.FloatField(null=True)

    objects: ClassVar[models.Manager["Event"]]

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "event_id"], name="one_event")]

    def __str__(self) -> str:
        return self.event_id
