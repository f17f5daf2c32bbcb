"""Celery in the place of the Foreman."""
