"""The backend for Django's tasks framework.

>>> TASKS = {"default": {"BACKEND": "snappea.backend.SnappeaBackend"}}
"""

from .django_tasks.backend import SnappeaBackend as SnappeaBackend
