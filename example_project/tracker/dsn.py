"""The DSN: the address to which a client sends events, with its public key."""

import re

from django.conf import settings
from django.utils.crypto import constant_time_compare


def dsns(host: str) -> list[str]:
    """Return the DSN of each project, with the key before the host."""
    return [f"http://{key}@{host}/{project}" for project, key in _keys().items()]


def is_key_of(project: int, key: str) -> bool:
    """Tell whether a project exists and has this key."""
    return bool(key) and constant_time_compare(key, _keys().get(project, ""))


def key_in(auth_header: str) -> str:
    """Return the public key in an X-Sentry-Auth header, or an empty string."""
    found = re.search(r"\bsentry_key=([^,\s]+)", auth_header)
    return found[1] if found else ""


def _keys() -> dict[int, str]:
    keys: dict[int, str] = getattr(settings, "DSN_KEYS", {})
    return keys
