"""The connection beneath Django's, as the queue uses it: a sqlite3.Connection, or one with its methods."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from django.core.exceptions import ImproperlyConfigured
from django.db import Error
from django.utils.connection import ConnectionDoesNotExist

#: What a database may raise.
FAULTS = (sqlite3.Error, Error)
#: What is raised where the queue cannot be used, also by wrong settings.
UNUSABLE = (*FAULTS, ConnectionDoesNotExist, ImproperlyConfigured)


class Rows(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed."""

    @property
    def lastrowid(self) -> Any:
        """The id of the row that was inserted."""

    def fetchone(self) -> Any:
        """Return the next row; None if there is none."""

    def fetchall(self) -> list[Any]:
        """Return all rows."""


class RawConnection(Protocol):
    """Runs statements as they are written in `statements.py`. Each is a transaction if none is open."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ..., /) -> Rows:
        """Run a statement. Raises one of FAULTS."""

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Rows:
        """Run a statement for each of many parameters. Raises one of FAULTS."""
