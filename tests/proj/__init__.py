"""A project that has put Celery in charge."""

from .celery import app as celery_app

__all__ = ["celery_app"]
