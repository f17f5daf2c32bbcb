"""The server ends for good, and its standby takes over."""

import signal
from collections.abc import Iterator

import pytest
from django.db import connections

from snappea.models import Presence
from tests.conftest import queue_on
from tests.playground.tasks import record, wait_for
from tests.proxy import Proxy
from tests.servers import Postgres
from tests.site import PostgresSite, wait_until

pytestmark = [pytest.mark.on_postgres, pytest.mark.long]


@pytest.fixture
def primary(site: PostgresSite) -> Iterator[Postgres]:
    """Return a server of this test's own, with the same tables."""
    server = Postgres(primary=site.server)
    server.promote()
    yield server
    server.close()


@pytest.fixture
def proxy(primary: Postgres) -> Iterator[Proxy]:
    """What leads to the server, whichever it is."""
    with Proxy(primary.port) as found:
        yield found


def test_a_standby_takes_over(site: PostgresSite, primary: Postgres, proxy: Proxy) -> None:
    """Foremen go on there, with the tasks that they run; what was accepted is there."""
    standby = primary.replicate()
    try:
        with queue_on({**primary.settings(site.name), "PORT": str(proxy.port)}):
            site.lead_to(proxy.port)
            pool = [site.foreman(NUM_WORKERS=1) for _ in range(2)]
            go = str(site.directory / "go")
            accepted = [wait_for.delay(f"{number}", go) for number in range(6)]
            wait_until(lambda: site.ledger.keys("start").total() == 2)
            primary.stop(signal.SIGQUIT)
            standby.promote()
            proxy.target = standby.port
            connections["snappea"].close()
            for foreman in pool:
                foreman.wait_for_output("Reconnected to ")
            assert {one.status for one in accepted} == {"ready", "running"}
            (site.directory / "go").touch()
            wait_until(lambda: [one.status for one in accepted] == [None] * len(accepted))
            record.delay("after")
            wait_until(lambda: site.ledger.count("end", "after"))
            assert set(site.ledger.keys("start").values()) == {1}
            assert Presence.objects.count() == len(pool)
            assert [foreman.stop() for foreman in pool] == [0, 0]
    finally:
        standby.close()
