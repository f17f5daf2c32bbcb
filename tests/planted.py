"""A module outside every installed app: a row that names it must not get it imported."""

from pathlib import Path

from django.conf import settings

Path(settings.DIR, "planted").touch()


def run(word: str) -> None:
    """Do harm."""
