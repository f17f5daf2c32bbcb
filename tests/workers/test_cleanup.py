"""What a task leaves in its thread, on a connection or in a cache does not reach the next task."""

import asyncio
import decimal
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from asgiref.local import Local
from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.db import connections
from django.db.backends.sqlite3.base import DatabaseWrapper
from django.urls import get_urlconf, set_urlconf
from django.utils import timezone, translation

from snappea import TaskFunction, task
from snappea.queue.database import connect, file_of
from snappea.queue.logbook import Logbook
from snappea.queue.records import Claim
from snappea.tasks.function import registry
from snappea.workers import execute
from snappea.workers.cleanup import TidyThreads, close_connections, tidy_connections
from snappea.workers.limits import TaskHandle
from snappea.workers.threads import WorkerPool
from tests.playground.leftovers import change_apart, change_on_loop
from tests.site import Site, wait_until

Steps = Callable[..., list[Any]]


@pytest.fixture
def steps(site: Site) -> Iterator[Steps]:
    """Return a function that runs others as tasks, one by one in a thread, and returns their results."""

    def run(*functions: Callable[[], Any]) -> list[Any]:
        found: list[Any] = []
        made: list[TaskFunction[..., Any]] = []
        for number, function in enumerate(functions):
            made.append(task(name=f"tests.step{number}")(_noting(function, found)))

        def work() -> None:
            for number in range(len(made)):
                outcome = execute.execute(
                    Claim(0, number + 1, 1, f"tests.step{number}", "[]", "{}"), TaskHandle()
                )
                if outcome.error:
                    found.append(outcome.error)
                tidy_connections()
            close_connections()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(60)
        for one in made:
            del registry[one.name]
        return found

    yield run


def _noting(function: Callable[[], Any], found: list[Any]) -> Callable[[], None]:
    def step() -> None:
        found.append(function())

    return step


@pytest.fixture(params=[0, 600], ids=["closed after each", "kept open"])
def default(request: pytest.FixtureRequest, site: Site) -> Iterator[None]:
    """Run a test with both kinds of connections."""
    settings: Any = connections.settings["default"]
    settings["CONN_MAX_AGE"] = request.param
    yield
    settings["CONN_MAX_AGE"] = 0


def connection() -> Any:
    return connections["default"]


def test_a_tenant_on_a_connection(steps: Steps, default: None) -> None:
    def with_query() -> Any:
        before = getattr(connection(), "tenant", None)
        connection().tenant = "one"
        connection().cursor().close()
        return before

    def without_query() -> Any:
        before = getattr(connection(), "tenant", None)
        connection().tenant = "two"
        return before

    assert steps(with_query, with_query, without_query, without_query, with_query) == [None] * 5


def test_a_tenant_on_a_connection_that_was_never_opened(steps: Steps, default: None) -> None:
    def mark() -> Any:
        before = getattr(connection(), "tenant", None)
        connection().tenant = "one"
        return before

    assert steps(mark, mark, mark) == [None] * 3


def test_autocommit(steps: Steps, default: None) -> None:
    def turn_off() -> Any:
        connection().ensure_connection()
        before = connection().get_autocommit()
        connection().set_autocommit(False)
        connection().cursor().execute("INSERT INTO auth_group (name) VALUES ('left behind')").close()
        return before

    def look() -> Any:
        with connection().cursor() as cursor:
            return cursor.execute("SELECT count(*) FROM auth_group").fetchone()

    assert steps(turn_off, turn_off, look) == [True, True, (0,)]


def test_what_is_set_by_sql_stays_with_an_open_connection(steps: Steps, default: None) -> None:
    """The manual says so: only the database could tell what was set, at the price of a query."""

    def set_pragma() -> Any:
        with connection().cursor() as cursor:
            before = cursor.execute("PRAGMA cache_size").fetchone()
            cursor.execute("PRAGMA cache_size = 77")
        return before

    first, second = steps(set_pragma, set_pragma)
    assert (second == (77,)) == bool(connections.settings["default"]["CONN_MAX_AGE"]) and first != (77,)


def test_what_belongs_to_the_context(steps: Steps) -> None:
    def change() -> Any:
        before = decimal.getcontext().prec
        decimal.getcontext().prec = 5
        return before

    assert steps(change, change) == [28, 28]


def test_what_belongs_to_the_thread_or_process_stays(steps: Steps) -> None:
    """The manual says so."""
    local = threading.local()

    def change() -> Any:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        before = [getattr(local, "tenant", None), "LEFT_BEHIND" in os.environ, signal.SIGUSR2 in mask]
        before += [warnings.filters[0] == ("ignore", None, BytesWarning, None, 7), random.random() == drawn]
        local.tenant = "one"
        os.environ["LEFT_BEHIND"] = "1"
        warnings.simplefilter("ignore", BytesWarning, 7)
        random.seed(0)
        return before

    drawn = random.Random(0).random()
    with warnings.catch_warnings():
        try:
            assert steps(change, change) == [
                [None, False, False, False, False],
                ["one", True, True, True, True],
            ]
        finally:
            del os.environ["LEFT_BEHIND"]


def test_what_belongs_to_a_process_ends_with_it(site: Site) -> None:
    for _ in range(2):
        change_apart.delay()
    site.foreman(NUM_WORKERS=1)
    site.wait_until_empty()
    assert site.ledger.lines() == [["before", "None", "False", "True"]] * 2


def test_async_tasks_share_a_thread_but_no_context(site: Site) -> None:
    for _ in range(2):
        change_on_loop.delay()
    site.foreman(ASYNC_CONCURRENCY=1)
    site.wait_until_empty()
    first, second = site.ledger.lines()
    assert first == ["before", "None", "None", "None", "None", "None"]
    assert second == ["before", "one", "None", "None", "None", "None"]


def test_wrappers_and_the_debug_cursor(steps: Steps, default: None) -> None:
    def mark() -> Any:
        before = len(connection().execute_wrappers), connection().force_debug_cursor
        connection().execute_wrappers.append(lambda execute, *args: execute(*args))
        connection().force_debug_cursor = True
        connection().cursor().execute("SELECT 1").close()
        return before

    assert steps(mark, mark) == [(0, False)] * 2


class TenantWrapper(DatabaseWrapper):
    """A third-party backend that sets an attribute of its own."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.schema_name = "public"


def test_the_schema_of_a_backend_of_others(
    steps: Steps, default: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = ModuleType("tests.tenants.base")
    base.DatabaseWrapper = TenantWrapper  # type: ignore[attr-defined]
    for name in ("tests.tenants", "tests.tenants.base"):
        monkeypatch.setitem(sys.modules, name, base)
    monkeypatch.setitem(connections.settings["default"], "ENGINE", "tests.tenants")

    def use() -> Any:
        before = connection().schema_name
        connection().schema_name = "one"
        connection().cursor().close()
        return before

    assert steps(use, use, lambda: connection().schema_name) == ["public"] * 3


def test_a_connection_that_is_as_it_was_is_kept(steps: Steps, default: None) -> None:
    def use() -> Any:
        connection().cursor().execute("SELECT 1").close()
        return id(connection()), id(connection().connection)

    first, second = steps(use, use)
    assert first[0] == second[0]
    if connections.settings["default"]["CONN_MAX_AGE"]:
        assert first == second


def test_the_log_of_queries_does_not_grow(steps: Steps, default: None, settings: Any) -> None:
    settings.DEBUG = True

    def query() -> int:
        before = len(connection().queries_log)
        connection().cursor().execute("SELECT 1").close()
        return before

    assert steps(query, query, query) == [0, 0, 0]


def test_what_is_active_in_a_thread(steps: Steps) -> None:
    local = Local()

    def activate() -> Any:
        before = translation.get_language(), str(timezone.get_current_timezone()), get_urlconf()
        seen = (*before, getattr(local, "tenant", None))
        translation.activate("nl")
        timezone.activate("Asia/Tokyo")
        set_urlconf("tests.other")
        local.tenant = "one"
        return seen

    first, second = steps(activate, activate)
    assert first == second and first[2:] == (None, None)


class NotingCache(LocMemCache):
    """A cache that notes when it is closed."""

    closed: list[str] = []

    def close(self, **kwargs: Any) -> None:
        self.closed.append(threading.current_thread().name)
        raise ConnectionError("it is gone")


def test_caches_are_closed(steps: Steps, settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.CACHES = {"default": {"BACKEND": "tests.workers.test_cleanup.NotingCache"}}
    NotingCache.closed.clear()
    assert steps(lambda: caches["default"].get("x"), lambda: 1, lambda: caches["default"].get("x")) == [
        None,
        1,
        None,
    ]
    assert len(NotingCache.closed) == 2
    assert "Could not close the caches: ConnectionError('it is gone')" in caplog.text


def test_a_task_without_caches_closes_none(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    monkeypatch.setattr(caches, "close_all", lambda: closed.append(1))
    assert steps(lambda: 1, lambda: caches["default"].get("x"), lambda: 2) == [1, None, 2]
    assert closed == [1]  # Django takes 6 us for it even if no cache was used


def test_threads_beside_the_event_loop(site: Site) -> None:
    def use() -> Any:
        before = getattr(connection(), "tenant", None)
        connection().tenant = "one"
        connection().cursor().close()
        return before

    async def main() -> list[Any]:
        asyncio.get_running_loop().set_default_executor(TidyThreads(1))
        apart = sync_to_async(use, thread_sensitive=False)
        return [await apart(), await asyncio.to_thread(use), await apart()]

    assert asyncio.run(main()) == [None] * 3


def test_a_thread_for_each_task(site: Site) -> None:
    local, seen, opened = threading.local(), [], []

    @task(name="tests.local")
    def use(number: int) -> None:
        seen.append(getattr(local, "tenant", None))
        local.tenant = number
        connections["default"].ensure_connection()
        opened.append((threading.current_thread(), connections["default"]))

    file = file_of(connect())
    assert file
    logbook = Logbook(file, 1000)
    pool = WorkerPool(2, logbook, lambda: None, tasks_per_thread=1)
    try:
        for start in (0, 20):
            numbers = range(start, start + 20)
            claims = [Claim(0, number + 1, 1, "tests.local", f"[{number}]", "{}") for number in numbers]
            pool.hand_over([(logbook.enter(claim), claim) for claim in claims])
            wait_until(lambda: not pool.backlog and len(pool._parked) == len(pool._handles))
        assert seen == [None] * 40
        threads = {thread for thread, _connection in opened}
        assert len(threads) == 40
        for thread in threads:
            thread.join(60)
        assert all(connection.connection is None for _thread, connection in opened)
    finally:
        del registry["tests.local"]


def test_a_thread_for_a_few_tasks(site: Site) -> None:
    threads = []

    @task(name="tests.local")
    def use() -> None:
        threads.append(threading.current_thread())

    file = file_of(connect())
    assert file
    logbook = Logbook(file, 1000)
    pool = WorkerPool(1, logbook, lambda: None, tasks_per_thread=3)
    try:
        claims = [Claim(0, number, 1, "tests.local", "[]", "{}") for number in range(1, 8)]
        pool.hand_over([(logbook.enter(claim), claim) for claim in claims])
        wait_until(lambda: len(threads) == 7)
        assert [threads.count(thread) for thread in dict.fromkeys(threads)] == [3, 3, 1]
    finally:
        del registry["tests.local"]
