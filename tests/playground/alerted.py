"""A function for SNAPPEA["ALERT"] that notes what it is told, and one that fails."""

import json

from django.conf import settings


def note(name: str, text: str, is_over: bool) -> None:
    """Append to the file "alerts" of the site."""
    with open(settings.DIR / "alerts", "a", encoding="utf-8") as file:
        file.write(json.dumps([name, is_over, text]) + "\n")


def fail(name: str, text: str, is_over: bool) -> None:
    """Fail, as a mail server does that is down."""
    raise OSError("no mail server")
