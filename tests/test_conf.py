"""The SNAPPEA setting: defaults, unknown keys, values of wrong types."""

import contextlib
import re
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from snappea.conf import Settings, alias, current, hook, problems
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
        ({"XYZ": 8}, "unknown key 'XYZ'", "The keys are ENGINE, DATABASE"),
        ({3: 8}, "unknown key 3", "The keys are"),
        ({"NUM_WORKERS": "8"}, "SNAPPEA['NUM_WORKERS'] is '8'", "a whole number from 1 to "),
        ({"NUM_WORKERS": 0}, "SNAPPEA['NUM_WORKERS'] is 0", "a whole number from 1 to "),
        ({"NUM_WORKERS": True}, "SNAPPEA['NUM_WORKERS'] is True", "a whole number from 1 to "),
        ({"NUM_WORKERS": 2.5}, "SNAPPEA['NUM_WORKERS'] is 2.5", "a whole number from 1 to "),
        ({"GRACEFUL_TIMEOUT": -1}, "is -1", "a number of seconds from 0 to "),
        ({"GRACEFUL_TIMEOUT": float("nan")}, "is nan", "a number of seconds from 0 to "),
        ({"POLL_INTERVAL": 0}, "is 0", "a number of seconds from 0.001 to "),
        ({"WORKAHOLIC": 1}, "is 1", "True or False"),
        ({"SCHEDULES": {"task": "x"}}, "SCHEDULES", "a list of dicts such as"),
        ({"SCHEDULES": [{"task": "x", "crom": "* * * * *"}]}, "SCHEDULES", "[0] has 'crom'"),
        ({"SCHEDULES": [{"task": "x"}]}, "SCHEDULES", '[0] needs "task", and either "cron" or "every"'),
        ({"SCHEDULES": [{"cron": "* * * * *"}]}, "SCHEDULES", 'needs "task", and'),
        ({"SCHEDULES": [{"task": "x", "every": 0}]}, "SCHEDULES", '"every" to be more than 0 seconds'),
        ({"SCHEDULES": [{"task": "x", "cron": 5}]}, "SCHEDULES", "[0] has an invalid 'cron': 5"),
        ({"SCHEDULES": [{"task": "x", "every": 5, "cron": "* * * * *"}]}, "SCHEDULES", "[0] needs"),
        (
            {"ALERT": "admins"},
            "is 'admins'",
            "a dict with some of the keys TO, NO_FOREMAN, BACKLOG, FAILURES",
        ),
        ({"ALERT": {"NO_FORMAN": 3}}, "NO_FORMAN", "a dict with some of the keys"),
        ({"ALERT": {"TO": 3}}, "ALERT", '"TO" is "admins", a function, or its path'),
        ({"ALERT": {"BACKLOG": 0}}, "ALERT", '"BACKLOG" is a number of seconds from 1 to'),
        ({"ALERT": {"FAILURES": 20}}, "ALERT", '"FAILURES" is (percent, minutes), such as (20, 10)'),
        ({"ALERT": {"FAILURES": (20, 0)}}, "ALERT", '"FAILURES" is (percent, minutes)'),
        ({"DATABASE": None}, "is None", "a string"),
        ({"SYNCHRONOUS": "OFF"}, "is 'OFF'", "'FULL' or 'NORMAL'"),
        (
            {"QUEUES": ["mail"]},
            "SNAPPEA['QUEUES'] is ['mail']",
            'a dict such as {"mail": {"max_concurrency": 2}',
        ),
        ({"QUEUES": {"mail": None}}, "SNAPPEA['QUEUES'] is", "a dict such as"),
        ({"QUEUES": {"mail": 2}}, "SNAPPEA['QUEUES'] is", "a dict such as"),
        ({"QUEUES": {"mail": {"max": 2}}}, "SNAPPEA['QUEUES'] is", "a dict such as"),
        ({"QUEUES": {"mail": {"max_concurrency": 0}}}, "SNAPPEA['QUEUES'] is", "a dict such as"),
        ({"QUEUES": {"mail": {"max_concurrency": True}}}, "SNAPPEA['QUEUES'] is", "a dict such as"),
        ({"QUEUES": {"mail": {"max_concurrency": 1.5}}}, "SNAPPEA['QUEUES'] is", "a dict such as"),
        ({"QUEUES": {"mail": {"soft_time_limit": 0}}}, "SNAPPEA['QUEUES'] is", "a dict such as"),
        ({"QUEUES": {"mail": {"soft_time_limit": "9"}}}, "SNAPPEA['QUEUES'] is", "a dict such as"),
        ({"SOFT_TIME_LIMIT": 0}, "is 0", "a number of seconds from 0.001 to 1,000,000,000, or None"),
        ({"SOFT_TIME_LIMIT": "30"}, "is '30'", "a number of seconds from 0.001 to 1,000,000,000, or None"),
        ({"MAX_STUCK_WORKERS": -1}, "is -1", "a whole number from 0 to "),
        ({"MAX_STUCK_WORKERS": None}, "is None", "a whole number from 0 to 10,000."),
        ({"ASYNC_CONCURRENCY": 0}, "is 0", "a whole number from 1 to "),
        ({"MAX_TASKS": 0}, "is 0", "a whole number from 1 to 1,000,000,000, or None"),
        ({"MAX_TASKS": 2.5}, "is 2.5", "a whole number from 1 to 1,000,000,000, or None"),
        ({"MAX_MEMORY": "lots"}, "is 'lots'", 'a number of bytes, or as in "800M" or "80%", or None'),
        ({"MAX_MEMORY": "101%"}, "is '101%'", "a number of bytes"),
        ({"MAX_MEMORY": "0%"}, "is '0%'", "a number of bytes"),
        ({"MAX_MEMORY": 0}, "is 0", "a number of bytes"),
        ({"MAX_MEMORY": True}, "is True", "a number of bytes"),
        ({"QUEUES": {1: {}}}, "SNAPPEA['QUEUES'] is {1: {}}", "a dict such as"),
        ({"QUEUE": {}}, "unknown key 'QUEUE'", "Did you mean 'QUEUES'?"),
        ({"HOOK_ADD_TASK_KWARGS": 3}, "SNAPPEA['HOOK_ADD_TASK_KWARGS'] is 3", "a function, or its path"),
        ({"HOOK_RUN_TASK_CONTEXT": []}, "SNAPPEA['HOOK_RUN_TASK_CONTEXT'] is []", "a function, or its path"),
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


def test_limits_as_they_may_be() -> None:
    for memory in (None, 1, 2**40, "800M", "1.5G", "80%", "100%", "1048576"):
        assert problems({"MAX_MEMORY": memory}) == [], memory
    assert problems({"SOFT_TIME_LIMIT": None, "MAX_TASKS": None, "MAX_STUCK_WORKERS": 0}) == []
    assert problems({"SOFT_TIME_LIMIT": 0.5, "MAX_TASKS": 1, "ASYNC_CONCURRENCY": 1}) == []


def test_queues_as_they_may_be(settings: Any) -> None:
    queues: Any
    for queues in (
        None,
        {},
        {"mail": {}},
        {"mail": {"max_concurrency": 2}, "default": {"max_concurrency": 1, "soft_time_limit": 0.5}},
    ):
        assert problems({"QUEUES": queues}) == []
        settings.SNAPPEA = {"QUEUES": queues}
        assert queues == current().QUEUES


def test_a_hook_is_a_function_or_its_path_and_none_by_default(settings: Any) -> None:
    assert hook("HOOK_ADD_TASK_KWARGS") is None and hook("HOOK_RUN_TASK_CONTEXT") is None
    settings.SNAPPEA = {"HOOK_ADD_TASK_KWARGS": dict, "HOOK_RUN_TASK_CONTEXT": "contextlib.nullcontext"}
    assert (hook("HOOK_ADD_TASK_KWARGS"), hook("HOOK_RUN_TASK_CONTEXT")) == (dict, contextlib.nullcontext)
    settings.SNAPPEA = {}
    assert hook("HOOK_RUN_TASK_CONTEXT") is None


@pytest.mark.parametrize("path", ["nowhere", "nowhere.at_all", "contextlib.nothing", ".", ".."])
def test_a_hook_that_is_not_there_is_named(settings: Any, path: str) -> None:
    settings.SNAPPEA = {"HOOK_RUN_TASK_CONTEXT": path}
    with pytest.raises(ConfigurationError, match=rf"SNAPPEA\['HOOK_RUN_TASK_CONTEXT'\] is '{path}'"):
        hook("HOOK_RUN_TASK_CONTEXT")


def test_the_alias_is_known_even_if_the_rest_is_wrong(settings: Any) -> None:
    for configured, expected in (
        ({}, "snappea"),
        ({"DATABASE": "queue", "NONSENSE": 1}, "queue"),
        ({"DATABASE": 3}, "snappea"),
        (None, "snappea"),
    ):
        settings.SNAPPEA = configured
        assert alias() == expected


@pytest.mark.parametrize(
    "configured",
    [
        {"NUM_WORKERS": 10_001},
        {"ASYNC_CONCURRENCY": 10**9},
        {"GRACEFUL_TIMEOUT": float("inf")},
        {"POLL_INTERVAL": 1e308},
        {"STATS_RETENTION_MINUTES": 2**70},
        {"NUM_WORKERS": 10**5000},
    ],
)
def test_out_of_range_values_are_refused(configured: Any) -> None:
    ((said, cure),) = problems(configured)
    assert "SNAPPEA[" in said and re.search(r" number( of \w+)? from [\d.]+ to [\d,]+\d", cure)


def test_what_cannot_be_shown_is_named_all_the_same() -> None:
    ((said, _cure),) = problems({"DATABASE": 10**5000})
    assert said == "SNAPPEA['DATABASE'] is <int that cannot be shown>."
