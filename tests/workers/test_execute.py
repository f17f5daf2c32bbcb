"""Each claim gets one Outcome, whatever the task does."""

import os
from typing import Any

import pytest
from django.db import connections, transaction
from django.utils import translation

from snappea.queue.records import Claim
from snappea.tasks.function import TaskFunction
from snappea.workers import execute
from snappea.workers.cleanup import tidy_connections
from snappea.workers.limits import TaskHandle
from tests.site import Made


def claim_of(made: "TaskFunction[..., Any]", args: str = "[]", kwargs: str = "{}") -> Claim:
    return Claim(0, 1, 1, made.name, args, kwargs)


def test_success(made: Made) -> None:
    seen = []

    @made
    def keep(*args: Any, **kwargs: Any) -> None:
        seen.append((args, kwargs))

    outcome = execute.execute(claim_of(keep, '[1, "two"]', '{"three": [3]}'), TaskHandle())
    assert seen == [((1, "two"), {"three": [3]})]
    assert (outcome.error, outcome.reason) == ("", "") and 0 <= outcome.duration < 60


def test_failure_has_a_traceback_and_a_reason(made: Made) -> None:
    @made
    def fail() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second\nline") from error

    outcome = execute.execute(claim_of(fail), TaskHandle())
    assert "KeyError: 'first'" in outcome.error and "direct cause" in outcome.error
    assert outcome.error.rstrip().endswith("ValueError: second\nline")
    assert outcome.reason == r"ValueError: second\nline"


def test_long_and_odd_messages(made: Made) -> None:
    @made
    def fail() -> None:
        raise ValueError("\ud800" + "x" * 1_000_000)

    outcome = execute.execute(claim_of(fail), TaskHandle())
    assert len(outcome.error) < execute.MAX_ERROR + 100 and "characters left out" in outcome.error
    assert len(outcome.reason) <= execute.MAX_REASON + 20
    outcome.error.encode()
    outcome.reason.encode()


def test_an_asynchronous_task_runs_to_its_end(made: Made) -> None:
    seen = []

    @made
    async def keep(value: int) -> None:
        seen.append(value)

    assert execute.execute(claim_of(keep, "[3]"), TaskHandle()).error == ""
    assert seen == [3]


def test_what_a_task_activates_ends_with_it(made: Made) -> None:
    @made
    def activate() -> None:
        translation.activate("nl")

    before = translation.get_language()
    assert execute.execute(claim_of(activate), TaskHandle()).error == ""
    assert translation.get_language() == before != "nl"


def test_a_transaction_left_open_is_rolled_back(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    @made
    def leak() -> None:
        transaction.atomic().__enter__()
        with connections["default"].cursor() as cursor:
            cursor.execute("CREATE TABLE leaked (id integer)")

    assert execute.execute(claim_of(leak), TaskHandle()).error == ""
    tidy_connections()
    assert "left a transaction open on 'default'" in caplog.text
    assert "leaked" not in connections["default"].introspection.table_names()
    with transaction.atomic():
        assert connections["default"].in_atomic_block


def test_a_connection_closed_within_a_transaction_can_be_used_again(made: Made) -> None:
    @made
    def close() -> None:
        transaction.atomic().__enter__()
        connections["default"].ensure_connection()
        connections["default"].close()

    execute.execute(claim_of(close), TaskHandle())
    tidy_connections()
    assert connections["default"].introspection.table_names()


def test_connections_are_closed_as_around_a_request(made: Made) -> None:
    @made
    def query() -> None:
        connections["default"].ensure_connection()

    execute.execute(claim_of(query), TaskHandle())
    tidy_connections()
    assert connections["default"].connection is None, "CONN_MAX_AGE is 0"


def test_a_child_that_a_task_forked_never_returns(made: Made) -> None:
    @made
    def fork() -> None:
        if (child := os.fork()) == 0:
            raise SystemExit
        assert os.waitpid(child, 0)[1] == 256, "it ended by itself, with exit code 1"

    assert execute.execute(claim_of(fork), TaskHandle()).error == ""
