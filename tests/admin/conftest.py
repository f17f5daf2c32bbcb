"""What the tests of the admin share."""

import pytest
from django.test import Client

from snappea.monitoring import shared
from tests.site import Site
from tests.web import user


@pytest.fixture
def browser(site: Site) -> Client:
    """Return the client of a superuser."""
    browser = Client()
    browser.force_login(user(is_superuser=True))
    return browser


@pytest.fixture(autouse=True)
def nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show each request what is in the tables now, not a second ago."""
    monkeypatch.setattr(shared, "SECONDS", 0.0)
