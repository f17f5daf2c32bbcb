"""How values are shown to people."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from django.utils import translation

from snappea import task
from snappea.models import Task
from snappea.monitoring.formatting import duration, exact, named_arguments, number, when
from snappea.tasks.function import registry

NAME = "tests.named"


@pytest.fixture(autouse=True)
def _declared() -> Any:
    yield
    registry.pop(NAME, None)


def declare(**options: Any) -> None:
    def ship(order: int, /, street: str, *parcels: int, express: bool = False, **more: Any) -> None: ...

    task(name=NAME, **options)(ship)


def named(args: Any, kwargs: Any, name: str = NAME) -> list[tuple[str, str]]:
    texts = [value if isinstance(value, str) else json.dumps(value) for value in (args, kwargs)]
    return named_arguments(Task(task_name=name, args=texts[0], kwargs=texts[1]))


def test_arguments_have_the_names_of_parameters() -> None:
    declare()
    assert named([1, "Straße"], {"express": True}) == [
        ("order", "1"),
        ("street", '"Straße"'),
        ("express", "true"),
    ]
    assert named([1, "x", 3, 4], {"note": None}) == [
        ("order", "1"),
        ("street", '"x"'),
        ("*args", "[3, 4]"),
        ("note", "null"),
    ]


def test_arguments_that_do_not_fit_are_all_shown() -> None:
    declare()
    assert named([1], {}) == [("order", "1")]
    assert named([1], {"order": 2}) == [("order", "1"), ("order", "2")]
    assert named([1, 2], {"x": 3}, "tests.unknown") == [("*args", "[1, 2]"), ("x", "3")]


@pytest.mark.parametrize("args", ["not JSON", "[" * 50_000, '{"a": 1}'])
def test_unreadable_arguments_are_shown_as_they_are(args: str) -> None:
    assert named(args, {}) == [("args", args), ("kwargs", "{}")]


def test_sensitive_arguments_are_not_shown() -> None:
    declare(sensitive=True)
    assert named(["secret"], {"key": "secret"}) == []
    assert named_arguments(Task(task_name="x", args='["secret"]', is_sensitive=True)) == []


def test_numbers_and_times_are_written_as_the_language_does() -> None:
    moment = datetime(2026, 11, 27, 13, 5, 9, tzinfo=UTC)
    with translation.override("de"):
        assert duration(3.4) == "3,4 s"
        assert number(136_000) == "136.000"
        assert when(moment) == "27.11.2026 13:05:09"
    with translation.override(None):  # as commands do
        assert (duration(3.4), exact(moment)) == ("3.4 s", "2026-11-27 13:05:09")
