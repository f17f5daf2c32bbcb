"""Events as they came, and the Issues they are digested into."""

from typing import ClassVar

from django.db import models


class Issue(models.Model):
    """All events of a project with the same type of exception, raised at the same place."""

    project = models.PositiveIntegerField()
    kind = models.CharField(max_length=200)
    place = models.CharField(max_length=300)
    #: What the first of its events said.
    message = models.CharField(max_length=500)
    #: The event that the issue was made for; it is the one that asks for the mail.
    first_event = models.OneToOneField("Event", on_delete=models.CASCADE, related_name="+")
    mailed_at = models.DateTimeField(null=True)

    objects: ClassVar[models.Manager["Issue"]]

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "kind", "place"], name="one_issue")]

    def __str__(self) -> str:
        return f"{self.kind} in {self.place}"


class Event(models.Model):
    """What a client sent, as it sent it."""

    project = models.PositiveIntegerField()
    event_id = models.CharField(max_length=32)
    #: The event's JSON.
    data = models.TextField()
    received_at = models.DateTimeField(auto_now_add=True)

    #: Null until it is digested.
    issue = models.ForeignKey(Issue, on_delete=models.CASCADE, null=True, related_name="events")
    digested_at = models.DateTimeField(null=True)
    #: Seconds from the task's delay() to its first line.
    waited = models.FloatField(null=True)

    objects: ClassVar[models.Manager["Event"]]

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "event_id"], name="one_event")]

    def __str__(self) -> str:
        return self.event_id
