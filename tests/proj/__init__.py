"""A project with Celery as its engine."""

from .celery import app as celery_app

__all__ = ["celery_app"]
