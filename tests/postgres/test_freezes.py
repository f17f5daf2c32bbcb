"""Foremen on PostgreSQL that freeze, or have a silent network."""

import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.utils import timezone

from snappea.models import Presence, Status, Task
from snappea.postgres import foremen
from snappea.queue import operations
from snappea.queue.clock import now
from snappea.queue.database import connect, raw, transact
from snappea.queue.records import Recovered
from snappea.queue.states import Gate
from snappea.results import AsyncResult
from tests.playground.gated import alone
from tests.playground.tasks import nap, nothing, wait_for
from tests.postgres.test_postgres import wait_for_an_older_server
from tests.proxy import Proxy
from tests.site import PostgresSite, Process, wait_until

pytestmark = [pytest.mark.on_postgres, pytest.mark.long]
TIMEOUT = 4.0
WAITS = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@pytest.fixture(autouse=True)
def soon_taken_for_dead(site: PostgresSite, settings: Any) -> None:
    """Shorten the timeout."""
    site.settings["FOREMAN_TIMEOUT"] = TIMEOUT
    settings.SNAPPEA = dict(site.settings)


@pytest.fixture
def proxy(site: PostgresSite) -> Iterator[Proxy]:
    """A network that can go silent."""
    with Proxy(site.server.port) as found:
        yield found


def foreman_behind(proxy: Proxy, site: PostgresSite, **settings: Any) -> Process:
    """Start a Foreman that connects through a proxy."""
    site.lead_to(proxy.port)
    try:
        return site.foreman(**settings)
    finally:
        site.lead_to(site.server.port)


def cut_off_with_a_task(proxy: Proxy, site: PostgresSite) -> tuple[Process, AsyncResult]:
    """Start a Foreman behind a proxy that goes silent while a task runs, which waits for the file `go`."""
    foreman = foreman_behind(proxy, site)
    running = wait_for.delay("running", str(site.directory / "go"))
    wait_until(lambda: site.ledger.count("start", "running"))
    proxy.is_silent = True
    return foreman, running


def freeze_in_a_transaction(site: PostgresSite, foreman: Process) -> None:
    """Stop a Foreman while the server waits for the next statement of its transaction."""
    holds = """
        SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE locktype = 'advisory' AND state = 'idle in transaction'"""
    chance = random.Random(1)

    def is_in_a_transaction() -> bool:
        alone.delay("alone")
        time.sleep(chance.uniform(0, 0.01))
        foreman.send(signal.SIGSTOP)
        time.sleep(0.002)  # the server may still work
        if not (found := site.sql(holds)):
            foreman.send(signal.SIGCONT)
        return bool(found)

    wait_until(is_in_a_transaction)


def test_one_that_is_frozen_in_its_transaction_stops_no_other(site: PostgresSite) -> None:
    frozen = site.foreman()
    freeze_in_a_transaction(site, frozen)
    other = site.foreman()
    alone.delay("canary")
    site.sql("DELETE FROM snappea_task WHERE status = 'ready' AND args NOT LIKE '%canary%'")
    wait_until(lambda: site.ledger.count("end", "canary"))
    frozen.kill()
    wait_until(lambda: Presence.objects.count() == 1 and not Task.objects.filter(status="running"))
    assert other.stop() == 0


def test_a_silent_network_is_noticed_and_left(site: PostgresSite, proxy: Proxy) -> None:
    foreman, running = cut_off_with_a_task(proxy, site)
    foreman.wait_for_output(r"The round failed: .*the server has not answered within 2 s")
    proxy.is_silent = False
    foreman.wait_for_output("Reconnected to ")
    (site.directory / "go").touch()
    wait_until(lambda: running.status is None)
    assert foreman.stop() == 0


def test_a_signal_is_obeyed_while_the_network_is_silent(site: PostgresSite, proxy: Proxy) -> None:
    foreman = foreman_behind(proxy, site, GRACEFUL_TIMEOUT=0.1)
    cut_off = nap.delay("long", 600)
    wait_until(lambda: site.ledger.count("start", "long"))
    proxy.is_silent = True
    foreman.send(signal.SIGTERM)
    assert foreman.wait() == 1
    other = site.foreman()
    wait_until(lambda: cut_off.status == Status.INTERRUPTED)
    assert other.stop() == 0


def test_a_heartbeat_is_sent_while_the_final_states_cannot_be_written(site: PostgresSite) -> None:
    foreman = site.foreman(GRACEFUL_TIMEOUT=0.1)
    cut_off = nap.delay("long", 600)
    wait_until(lambda: site.ledger.count("start", "long"))
    with site.server.connect(site.name) as other:
        other.execute("BEGIN")
        other.execute("LOCK TABLE snappea_task IN EXCLUSIVE MODE")
        foreman.send(signal.SIGTERM)
        foreman.wait_for_output("Could not write the final states yet")
        moment = site.sql("SELECT clock_timestamp()")[0][0]
        wait_until(lambda: site.sql("SELECT 1 FROM snappea_presence WHERE seen_at > ?", moment), deadline=4)
        other.execute("ROLLBACK")
    assert foreman.wait() == 0
    assert cut_off.status == Status.INTERRUPTED


def test_a_newcomer_does_not_take_the_living_for_dead(site: PostgresSite, proxy: Proxy) -> None:
    living, running = cut_off_with_a_task(proxy, site)
    silent = f"SELECT 1 FROM snappea_presence WHERE seen_at < clock_timestamp() - interval '{TIMEOUT} s'"
    wait_until(lambda: site.sql(silent))
    newcomer = site.foreman()
    proxy.is_silent = False
    living.wait_for_output("Reconnected to ")
    (site.directory / "go").touch()
    wait_until(lambda: running.status is None)
    assert "considers this one dead" not in living.output()
    assert [living.stop(), newcomer.stop()] == [0, 0]


def test_what_nobody_runs_does_not_stay_running(site: PostgresSite) -> None:
    """A Foreman that was considered dead claimed these tasks before it noticed, and died."""
    orphan = nothing.delay()
    site.sql(
        """UPDATE snappea_task SET status = 'running', claims = 1, attempts = 1, foreman_id = 999,
            started_at = clock_timestamp() - interval '1 h' WHERE id = ?""",
        orphan.id,
    )
    foreman = site.foreman()
    foreman.wait_for_output("A Foreman that was considered dead left 1 running: now interrupted")
    assert orphan.status == Status.INTERRUPTED


def test_the_end_of_a_foreman_rewrites_one_task_of_each_group(site: PostgresSite) -> None:
    db = raw(connect())
    foremen.register(db, 1)
    fields = {"task_name": alone.name, "status": "ready", "gate": Gate.BLOCKED}
    Task.objects.bulk_create(Task(lane=f"lane {n % 3}", **fields) for n in range(300))
    wait_for_an_older_server(site)
    site.sql("UPDATE snappea_presence SET seen_at = seen_at - interval '1 hour'")
    foremen.reap(db, now(), 2)
    assert sorted(Task.objects.filter(gate=Gate.NEW).values_list("pk", flat=True)) == [1, 2, 3]


def test_what_ends_while_its_foreman_is_taken_for_dead_is_not_reported(site: PostgresSite) -> None:
    before = foremen.register(raw(connect()), 1)
    fields = {"status": "running", "claims": 1, "foreman_id": before, "started_at": timezone.now()}
    Task.objects.create(task_name=nothing.name, **fields)
    wait_for_an_older_server(site)
    site.sql("UPDATE snappea_presence SET seen_at = seen_at - interval '1 hour'")

    def reap() -> dict[str, list[Recovered]]:
        with transact(connect()) as db:
            return foremen.reap(db, now(), 2)

    with site.server.connect(site.name) as other, ThreadPoolExecutor(1) as pool:
        other.execute("BEGIN")
        other.execute("DELETE FROM snappea_task")  # its outcome
        found = pool.submit(reap)
        wait_until(lambda: site.sql(WAITS))
        other.execute("COMMIT")
        assert list(found.result().values()) == [[]]


def test_one_that_comes_back_keeps_what_it_has_claimed_since(site: PostgresSite) -> None:
    db = raw(connect())
    before = foremen.register(db, 1)
    task = Task.objects.create(task_name=nothing.name, status="running", claims=1, foreman_id=before)
    foremen.leave(db, before)
    foreman_id = foremen.register(db, 1)
    foremen.adopt(db, foreman_id, before)
    task.refresh_from_db()
    assert (task.status, task.foreman_id) == ("running", foreman_id)


def test_a_deadlock_with_a_foreman_does_not_reach_the_caller(site: PostgresSite) -> None:
    """`terminate()` locks the rows in the order of their ids, and a Foreman in that of the outcomes."""
    first, second = (Task.objects.create(task_name=nothing.name, status="running") for _ in range(2))
    lock = "SELECT 1 FROM snappea_task WHERE id = %s FOR UPDATE"
    with site.server.connect(site.name) as other, ThreadPoolExecutor(1) as pool:
        other.execute("BEGIN")
        other.execute(lock, (second.pk,))
        done = pool.submit(operations.terminate, Task.objects.all())
        wait_until(lambda: site.sql(WAITS))
        other.execute(lock, (first.pk,))  # the server ends terminate()'s transaction
        other.execute("COMMIT")
        assert done.result() == 2
