"""The Django app."""

from django.apps import AppConfig


class TrackerConfig(AppConfig):
    name = "example_project.tracker"
