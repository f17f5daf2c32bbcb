"""The ids of results: the numbers of the rows or, with the option UUIDS, UUIDs that cannot be guessed.

A UUID (version 8) ends with the number. Its other bits are an HMAC, keyed by SECRET_KEY, of the number and
the time of the call: if SQLite gives a number again after a rollback, the UUID is another one.
"""

import uuid
from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils.crypto import constant_time_compare, salted_hmac

from ..models import Task
from ..tasks import engine
from .framework import task_backends

MAX_DIGITS = 18  # of a row's primary key
_NUMBER, _SIGNATURE = (1 << 62) - 1, 0xFFFF_FFFF_FFFF_0FFF << 64
_VERSION_AND_VARIANT = 0x8000 << 64 | 0x8000 << 48


def id_of(alias: str, call_id: Any, enqueued_at: datetime) -> str:
    """Return the id of a call for the backend of an alias. `call_id`: the engine's."""
    backend = task_backends[alias] if alias in task_backends.settings else None
    is_uuid = getattr(backend, "uses_uuids", False) and isinstance(call_id, int)  # Celery's are text
    return _as_uuid(call_id, enqueued_at) if is_uuid else str(call_id)


def find_by_number(text: str) -> Task | None:
    """Return the row of a number; None if there is none, or if it is written in another way."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS and text == str(int(text))
    return engine.of(int(text)).find(int(text)) if is_number else None


def find_by_uuid(text: str) -> Task | None:
    """Return the row of a UUID, which was made with SECRET_KEY or one of SECRET_KEY_FALLBACKS."""
    try:
        asked = uuid.UUID(text)
    except ValueError:
        return None
    number = asked.int & _NUMBER
    row = engine.of(number).find(number)
    if row is None:
        return None
    secrets = settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS
    made = (_as_uuid(number, row.enqueued_at, secret) for secret in secrets)
    return row if any(constant_time_compare(str(asked), each) for each in made) else None


def _as_uuid(number: int, enqueued_at: datetime, secret: str | bytes | None = None) -> str:
    value = f"{number} {enqueued_at.timestamp():.6f}"
    digest = salted_hmac("snappea.django_tasks", value, secret, algorithm="sha256").digest()
    signature = int.from_bytes(digest[:8], "big") << 64 & _SIGNATURE
    return str(uuid.UUID(int=signature | _VERSION_AND_VARIANT | number))
