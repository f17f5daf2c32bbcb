"""Fixtures for pytest: `snappea_eager` and `snappea_drain`. Loads Django only where a project has."""

import sys
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture(autouse=True)
def _snappea_begins_with_none() -> None:
    """Forget the calls that an earlier test left in memory."""
    if memory_engine := sys.modules.get("snappea.tasks.memory_engine"):
        memory_engine.MEMORY.clear()


@pytest.fixture
def snappea_eager() -> Iterator[None]:
    """Have `delay()` run each task at once, in this test."""
    from .testing import override_snappea

    with override_snappea(TASK_ALWAYS_EAGER=True):
        yield


@pytest.fixture
def snappea_drain() -> Callable[..., int]:
    """Return `snappea.testing.drain`, which runs what was enqueued."""
    from .testing import drain

    return drain
