"""What is on its way to Celery."""

from django.apps import apps
from django.db import models

from .errors import ConfigurationError
from .log import clean

if apps.models_ready and not apps.is_installed("snappea"):  # this is the first of our models
    raise ConfigurationError('snappea is used, but not installed. Add it: INSTALLED_APPS = [..., "snappea"]')


class Handover(models.Model):
    """A call that was handed over to Celery: it stays until one of Celery's workers has taken it.

    So that it runs once, however often its message was sent.
    """

    #: Celery's id of it.
    key = models.CharField(max_length=36, primary_key=True)
    task_name = models.CharField(max_length=255)
    #: All that is sent: a `records.Call`, when it was enqueued, and how often it was tried again.
    call = models.TextField()
    expires_at = models.DateTimeField(null=True, blank=True)
    #: When its message was sent last; None: that is not certain yet.
    sent_at = models.DateTimeField(null=True, blank=True)
    #: Which of its messages is being run, if that may be repeated.
    taken_by = models.CharField(max_length=32, default="", db_default="", blank=True)

    def __str__(self) -> str:
        return f"{clean(self.task_name)} {self.key}"
