"""What the tests of the admin share."""

import pytest

from snappea.monitoring import shared


@pytest.fixture(autouse=True)
def nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show each request what is in the tables now, not a second ago."""
    monkeypatch.setattr(shared, "SECONDS", 0.0)
