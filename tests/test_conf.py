"""The SNAPPEA setting: defaults, unknown keys, ill-typed values."""

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from snappea.conf import Settings, alias, current, problems
from snappea.errors import ConfigurationError


def test_the_defaults(settings: Any) -> None:
    del settings.SNAPPEA
    assert current() == Settings()
    assert (current().DATABASE, current().NUM_WORKERS, current().SYNCHRONOUS) == ("snappea", 4, "FULL")


def test_what_is_set_is_in_force_at_once(settings: Any) -> None:
    settings.SNAPPEA = {"NUM_WORKERS": 8}
    assert current().NUM_WORKERS == 8
    settings.SNAPPEA = {"GRACEFUL_TIMEOUT": 1}
    assert (current().NUM_WORKERS, current().GRACEFUL_TIMEOUT) == (4, 1)


@pytest.mark.parametrize(
    ("configured", "message", "hint"),
    [
        ({"NUM_WORKER": 8}, "unknown key 'NUM_WORKER'", "Did you mean 'NUM_WORKERS'?"),
        ({"num_workers": 8}, "unknown key 'num_workers'", "Did you mean 'NUM_WORKERS'?"),
        ({"XYZ": 8}, "unknown key 'XYZ'", "The keys are DATABASE, NUM_WORKERS"),
        ({3: 8}, "unknown key 3", "The keys are"),
        ({"NUM_WORKERS": "8"}, "SNAPPEA['NUM_WORKERS'] is '8'", "a whole number of at least 1"),
        ({"NUM_WORKERS": 0}, "SNAPPEA['NUM_WORKERS'] is 0", "a whole number of at least 1"),
        ({"NUM_WORKERS": True}, "SNAPPEA['NUM_WORKERS'] is True", "a whole number of at least 1"),
        ({"NUM_WORKERS": 2.5}, "SNAPPEA['NUM_WORKERS'] is 2.5", "a whole number of at least 1"),
        ({"GRACEFUL_TIMEOUT": -1}, "is -1", "a number of at least 0"),
        ({"GRACEFUL_TIMEOUT": float("nan")}, "is nan", "a number of at least 0"),
        ({"POLL_INTERVAL": 0}, "is 0", "a number of at least 0.001"),
        ({"WORKAHOLIC": 1}, "is 1", "True or False"),
        ({"DATABASE": None}, "is None", "a string"),
        ({"SYNCHRONOUS": "OFF"}, "is 'OFF'", "'FULL' or 'NORMAL'"),
        ([], "SNAPPEA is not a dict", "Write SNAPPEA = "),
    ],
)
def test_what_is_wrong_is_named_with_the_cure(
    settings: Any, configured: Any, message: str, hint: str
) -> None:
    ((said, cure),) = problems(configured)
    assert message in said and hint in cure
    settings.SNAPPEA = configured
    with pytest.raises(ConfigurationError) as raised:
        current()
    assert said in str(raised.value) and cure in str(raised.value)
    assert isinstance(raised.value, ImproperlyConfigured)


def test_all_problems_are_told_at_once() -> None:
    assert len(problems({"NUM_WORKERS": "8", "NUM_WORKER": 8, "WORKAHOLIC": None})) == 3
    assert problems({"NUM_WORKERS": 1, "GRACEFUL_TIMEOUT": 0.5, "SYNCHRONOUS": "NORMAL"}) == []


def test_the_alias_is_known_even_if_the_rest_is_wrong(settings: Any) -> None:
    for configured, expected in (
        ({}, "snappea"),
        ({"DATABASE": "queue", "NONSENSE": 1}, "queue"),
        ({"DATABASE": 3}, "snappea"),
        (None, "snappea"),
    ):
        settings.SNAPPEA = configured
        assert alias() == expected
