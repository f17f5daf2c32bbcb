"""Tasks with `bind=True`, and what else works as in Celery: `self.retry()`, `si()`, `apply()`."""

import asyncio
import re
from typing import Any

import pytest
from django.core.exceptions import SynchronousOnlyOperation

from snappea import Retry, TaskFunction, task
from snappea.errors import TaskDefinitionError
from snappea.models import Task
from snappea.tasks.function import registry
from snappea.testing import drain, override_snappea
from tests.playground.bound import call_again, fetch, fetch_isolated, fetch_on_loop, give_up, linger
from tests.playground.lifecycle import add, fail_with_result
from tests.playground.tasks import echo
from tests.site import Site, wait_until

WHERE: list[TaskFunction[[str, int], Any]] = [fetch, fetch_on_loop, fetch_isolated]


# in a worker


@pytest.mark.parametrize("fetching", WHERE, ids=["thread", "event loop", "process"])
def test_self_knows_its_row_and_retries(site: Site, fetching: TaskFunction[[str, int], Any]) -> None:
    site.foreman()
    row = fetching.delay("x", 2).id
    wait_until(lambda: site.ledger.count("end", "x", row))
    assert [line for line in site.ledger.lines() if line[0] == "start"] == [
        ["start", "x", str(retries), "2"] for retries in range(3)
    ]
    site.wait_until_empty()


@pytest.mark.parametrize("fetching", WHERE, ids=["thread", "event loop", "process"])
def test_it_fails_with_its_own_error(site: Site, fetching: TaskFunction[[str, int], Any]) -> None:
    site.foreman()
    fetching.delay("x", 9)
    wait_until(lambda: site.counts() == {"failed": 1})
    row = Task.objects.get()
    assert row.attempts == 3 and row.error.endswith("OSError: unreachable\n")


def test_no_retries_left_can_be_noticed(site: Site) -> None:
    site.foreman()
    give_up.apply_async(("x",), result_ttl=60)
    wait_until(lambda: site.ledger.count("end", "x", 1))
    wait_until(lambda: site.counts() == {"successful": 1})
    assert "was retried 1 times, and has no retries left." in str(Task.objects.get().result)


def test_a_killed_foreman_uses_up_no_retries(site: Site) -> None:
    foreman = site.foreman()
    linger.delay("x", 600)
    wait_until(lambda: site.ledger.count("start", "x", 0))
    foreman.kill()
    site.foreman()
    wait_until(lambda: site.ledger.count("end", "x", 0))
    assert site.ledger.count("start", "x", 0) == 2


def test_self_is_the_task(site: Site) -> None:
    site.foreman()
    call_again.delay("x", 2)
    wait_until(lambda: site.ledger.count("end", "x", 0))
    site.wait_until_empty()


# elsewhere


def test_called_directly() -> None:
    with pytest.raises(OSError, match="unreachable"):
        fetch("x", 1)
    with pytest.raises(Retry):
        give_up("x")
    assert fetch("x") == [None, 0, [], {}, True]
    assert asyncio.run(fetch_on_loop("x")) == [None, 0]


def test_in_memory(site: Site) -> None:
    with override_snappea(IN_TESTS="collect"):
        fetch.delay("x", failures=2)
        drain(including_scheduled=True)
        assert [line[:3] for line in site.ledger.lines()][:3] == [["start", "x", str(n)] for n in range(3)]


def test_eagerly(site: Site) -> None:
    with override_snappea(TASK_ALWAYS_EAGER=True):
        assert fetch.delay("x").get() == [None, 0, ["x"], {}, False]
        assert fetch_on_loop.delay("x").get() == [None, 0]
        with pytest.raises(Retry):
            fetch.delay("x", 1)


def test_its_arguments_are_checked_without_self(site: Site) -> None:
    with pytest.raises(TypeError, match=re.escape("fetch(): missing a required argument: 'key'")):
        fetch.delay()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="too many positional arguments"):
        fetch.delay("x", 1, 2)  # type: ignore[call-arg]
    assert [*fetch.signature.parameters] == ["key", "failures"]


def test_unique_calls_are_compared_without_self(site: Site) -> None:
    made = task(name="tests.bound", bind=True, unique=True)(fetch.function.__func__)  # type: ignore[attr-defined]
    try:
        assert made.delay("x").id == made.delay(key="x", failures=0).id
    finally:
        del registry["tests.bound"]


@pytest.mark.parametrize("function", [lambda: None, lambda *, key: None, lambda **options: None])
def test_a_function_without_room_for_self(function: Any) -> None:
    with pytest.raises(TaskDefinitionError, match=re.escape("tests.none: bind=True passes the task")):
        task(name="tests.none", bind=True)(function)
    assert "tests.none" not in registry


def test_options_of_a_retry_that_there_are_not() -> None:
    with pytest.raises(TypeError, match=r"retry\(\) has no option 'args'; a retry keeps its arguments"):
        fetch.retry(args=(1,))
    with pytest.raises(TypeError, match=r"retry\(\) has no option 'throw'; remove it"):
        fetch.retry(exc=OSError(), throw=False)
    with pytest.raises(TypeError, match=r"retry\(\) has no option 'count_down'; did you mean 'countdown'\?"):
        fetch.retry(count_down=3)


# si() and apply()


def test_an_immutable_signature_keeps_its_arguments(site: Site) -> None:
    echo.si(1, two=2).set(queue="mail").delay(3, four=4)
    echo.si(1).apply_async((3,), {"four": 4})
    assert list(Task.objects.order_by("pk").values_list("args", "kwargs", "queue")) == [
        ("[1]", '{"two":2}', "mail"),
        ("[1]", "{}", "default"),
    ]


def test_apply_runs_a_call_at_once(site: Site) -> None:
    result = add.apply((1, 2))
    assert result.get() == result.result == 3 and result.status == "successful" and result.id is None
    assert result.ready() and result.successful() and not result.failed()
    assert add.s(1, 2).apply().get() == 3
    assert Task.objects.count() == 0


def test_apply_keeps_what_the_task_raises(site: Site) -> None:
    result = fail_with_result.apply()
    assert result.failed() and not result.successful() and result.status == "failed"
    assert isinstance(result.result, ValueError)
    with pytest.raises(ValueError, match="no result"):
        result.get()
    with pytest.raises(ValueError, match="no result"):
        fail_with_result.apply(throw=True)
    assert isinstance(fetch.apply(("x", 1)).result, OSError), "what the retry was for"
    assert isinstance(give_up.apply(("x",)).result, Retry)


def test_apply_is_refused_on_an_event_loop() -> None:
    async def view() -> None:
        add.apply((1, 2))

    with pytest.raises(SynchronousOnlyOperation, match=re.escape("await sync_to_async(add.apply)(...)")):
        asyncio.run(view())


def test_apply_refuses_what_delay_refuses(site: Site) -> None:
    with pytest.raises(TypeError, match="missing a required argument"):
        add.apply((1,))
    with pytest.raises(TypeError, match=r"apply\(\) has no option 'link'; write a.s"):
        add.apply((1, 2), link=1)
    assert add.apply((1, 2), countdown=60).get() == 3
