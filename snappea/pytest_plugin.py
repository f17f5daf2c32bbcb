"""Fixtures for pytest: `snappea_eager` and `snappea_drain`. Does not load Django unless they are used."""

import sys
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture(autouse=True)
def _snappea_begins_with_none() -> None:
    """Clear the calls that an earlier test left in memory."""
    if memory_engine := sys.modules.get("snappea.tasks.memory_engine"):
        memory_engine.MEMORY.clear()


@pytest.fixture
def snappea_eager() -> Iterator[None]:
    """Make `delay()` run each task immediately, in this test.

    >>> def test_sign_up(client, snappea_eager, mailoutbox): ...
    """
    from .testing import override_snappea

    with override_snappea(TASK_ALWAYS_EAGER=True):
        yield


@pytest.fixture
def snappea_drain() -> Callable[..., int]:
    """Return `snappea.testing.drain`, which runs the enqueued tasks.

    >>> def test_welcome(snappea_drain):
    ...     send_welcome.delay("ada@example.com")
    ...     assert snappea_drain() == 1
    """
    from .testing import drain

    return drain
