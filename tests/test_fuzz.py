"""Any input (arguments, settings, command lines, envelopes) is accepted unchanged, or refused."""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest
from django.core.management import load_command_class
from django.core.management.base import OutputWrapper
from django.test import Client, override_settings
from hypothesis import given
from hypothesis import strategies as st

from example_project.tracker.models import Event, Issue
from snappea import checks
from snappea.conf import HOOKS, Settings, problems
from snappea.errors import CannotStart, ConfigurationError, SnappeaError
from snappea.foreman.loop import Foreman
from snappea.models import Schedule, Task
from snappea.queue import store
from snappea.queue.clock import now
from snappea.queue.database import connect, raw
from snappea.schedules import listing
from snappea.tasks.function import registry, task
from snappea.workers import execute
from snappea.workers.limits import TaskHandle
from tests.fuzzing import ANYTHING, JSON, ODD, PLAIN_TEXTS, TEXTS, as_arrived, fuzz
from tests.playground.tasks import record
from tests.site import Site

# arguments

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
_taken: list[Arguments] = []
#: Names that another package might take.
NAMES = st.sampled_from(["self", "args", "kwargs", "queue", "eta", "function", "task"]) | PLAIN_TEXTS


@pytest.fixture(scope="module")
def take() -> Iterator[Any]:
    """Return a task that keeps its arguments in memory."""

    @task(name="tests.fuzz.take")
    def take(*args: Any, **kwargs: Any) -> None:
        _taken.append((args, kwargs))

    yield take
    del registry["tests.fuzz.take"]


def run_next() -> Arguments:
    """Run the enqueued tasks, and return their arguments."""
    claim = store.claim_any(raw(connect()), now())
    assert claim
    outcome = execute.execute(claim, TaskHandle())
    assert not outcome.error, outcome.error
    store.settle(raw(connect()), now(), [outcome])
    return _taken.pop()


@fuzz(80)
@given(args=st.lists(JSON, max_size=4), kwargs=st.dictionaries(NAMES, JSON, max_size=4))
def test_what_is_json_arrives_exactly(site: Site, take: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    take.delay(*args, **kwargs)
    arrived = run_next()
    assert arrived == (tuple(args), kwargs)
    assert repr(arrived) == repr((tuple(args), kwargs)), "1 is not True, and 0.0 is not -0.0"


@fuzz(150)
@given(value=ANYTHING, name=TEXTS)
def test_anything_arrives_equal_or_is_refused(site: Site, take: Any, value: Any, name: str) -> None:
    try:
        take.delay(value, **{name: value})
    except (TypeError, ValueError) as refused:
        assert isinstance(refused, SnappeaError)
        assert "tests.fuzz.take(): argument" in str(refused) and "which is not JSON: " in str(refused)
        assert Task.objects.count() == 0
        str(refused).encode(errors="strict") if name.isascii() else None
        return
    assert run_next() == ((as_arrived(value),), {name: as_arrived(value)})


# settings

KEYS = st.sampled_from(list(Settings.__dataclass_fields__))
QUEUES = st.dictionaries(
    TEXTS, st.dictionaries(st.sampled_from(["max_concurrency", "soft_time_limit"]), ODD), max_size=3
)
SCHEDULES = st.lists(
    st.fixed_dictionaries(
        {"task": st.just(record.name) | TEXTS},
        optional={
            "every": ODD,
            "cron": st.sampled_from(["* * * * *", "*/0 * * * *", "0 0 30 2 *"]) | TEXTS,
            "name": TEXTS,
            "args": st.lists(ANYTHING, max_size=2) | ANYTHING,
            "kwargs": st.dictionaries(TEXTS, ANYTHING, max_size=2) | ANYTHING,
            "queue": TEXTS,
            "timezone": st.sampled_from(["UTC", "../UTC", "Europe", "\0", "/etc/passwd", "a" * 300]) | TEXTS,
            "catch_up": ANYTHING,
        },
    ),
    max_size=2,
)
SIZES = st.from_regex(r"\d{1,400}(\.\d{1,3})? ?[KMGkmg%]?B?", fullmatch=True)
PATHS = st.sampled_from(
    [".", "..", "a.", ".a", "os.path.", "contextlib.nullcontext", "a\0.b", "builtins.print"]
)


NUMBERS = st.sampled_from([0, 1, 0.001, 1e9, 1e10, 1e308, 2**31, 2**63, 2**70]) | st.floats() | st.integers()
PAIRS = st.one_of(
    st.tuples(KEYS, NUMBERS),
    st.tuples(KEYS, ANYTHING),
    st.tuples(st.just("QUEUES"), QUEUES),
    st.tuples(st.just("SCHEDULES"), SCHEDULES),
    st.tuples(st.just("MAX_MEMORY"), SIZES),
    st.tuples(st.sampled_from(HOOKS), PATHS | TEXTS),
    st.tuples(TEXTS, ANYTHING),
)


@fuzz(200)
@given(configured=st.lists(PAIRS, min_size=1, max_size=2).map(dict))
def test_any_value_of_a_setting_is_valid_or_named(site: Site, configured: dict[str, Any]) -> None:
    wrong = problems(configured)
    assert all(message and hint for message, hint in wrong)
    with override_settings(SNAPPEA=configured if wrong else {**configured, "IN_TESTS": "write"}):
        try_settings(configured, bool(wrong))


def try_settings(configured: dict[str, Any], is_wrong: bool) -> None:
    """Check whether a Foreman could start and work exactly if the checks pass."""
    found = [*checks.check_settings(), *checks.check_database(), *checks.check_schedules()]
    assert found or not is_wrong
    if not is_wrong and "DATABASE" not in configured:
        Schedule.objects.all().delete()
        try:
            foreman = Foreman()
            foreman._recover()
        except (CannotStart, ConfigurationError) as error:
            assert str(error)
            return
        assert not found or all(not message.is_serious() for message in found), found
        assert list(listing()) is not None


# the command line

WORDS = st.sampled_from(
    [
        "status",
        "list",
        "show",
        "enqueue",
        "run",
        "requeue",
        "cancel",
        "delete",
        "purge",
        "pause",
        "resume",
        "schedules",
        "check",
        "ready",
        "failed",
        "running",
        "successful",
        "scheduled",
        "--json",
        "--queue",
        "--task",
        "--older-than",
        "--limit",
        "--all",
        "--ids",
        "--countdown",
        "--priority",
        "--args",
        "--kwargs",
        "--status",
        "--terminate",
        "--pause",
        "--resume",
        "--fire",
        "--help",
        "-h",
        "--",
        "--verbosity",
        "--settings",
        "--traceback",
        "--no-color",
        "--force-color",
    ]
)
ESCAPED = st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=["Cs"])
VALUES = st.one_of(
    st.sampled_from([record.name, "default", "os.system", "[1]", "{}", '{"key": 1}', "[NaN]", "[" * 3000]),
    st.integers().map(str),
    st.integers(min_value=-(10**30), max_value=10**30).map(str),
    st.from_regex(r"[0-9]{1,25}(\.[0-9]{1,3})?[smhd]?", fullmatch=True),
    # a command line has no NUL; invalid UTF-8 arrives as lone surrogates
    st.text(
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | ESCAPED,
        max_size=10,
    ),
)
SUBCOMMANDS = {
    "status": [],
    "list": ["--limit", "--queue", "--task", "--older-than"],
    "show": [],
    "enqueue": ["--args", "--kwargs", "--countdown", "--queue", "--priority"],
    "run": ["--args", "--kwargs"],
    "requeue": ["--countdown", "--status", "--queue", "--task", "--older-than"],
    "cancel": ["--terminate", "--status", "--queue", "--task", "--older-than"],
    "delete": ["--all", "--status", "--queue", "--task", "--older-than"],
    "purge": ["--older-than", "--queue", "--dry-run"],
    "pause": [],
    "resume": [],
    "schedules": ["--pause", "--resume", "--fire"],
    "check": ["--queue"],
}
#: Lines that make sense, and lines that do not.
LINES = st.one_of(
    st.sampled_from(sorted(SUBCOMMANDS)).flatmap(
        lambda name: st.tuples(
            st.just([name]),
            st.lists(VALUES | st.sampled_from(["ready", "failed", "--json"]), max_size=2),
            st.lists(
                st.tuples(st.sampled_from(SUBCOMMANDS[name] or ["--json"]), VALUES).map(list), max_size=2
            ).map(lambda options: [word for option in options for word in option]),
        ).map(lambda parts: [*parts[0], *parts[1], *parts[2]])
    ),
    st.lists(WORDS | VALUES, max_size=6),
)


def run_command(name: str, arguments: list[str]) -> tuple[int, str]:
    """Run a command as `manage.py` does; return its exit code and output. Raises its unhandled errors."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")  # as Python has it
    command = load_command_class("snappea", name)
    code: Any = 0
    with redirect_stdout(out), redirect_stderr(err):
        command.stdout, command.stderr = OutputWrapper(out), OutputWrapper(err)
        try:
            command.run_from_argv(["manage.py", name, *arguments])
        except SystemExit as end:
            code = end.code
    err.seek(0)
    return int(code or 0), err.read()


@fuzz(250)
@given(arguments=LINES)
def test_any_command_line_does_it_or_says_why_not(site: Site, arguments: list[str]) -> None:
    if not Task.objects.exists():
        record.delay("x")
    code, said = run_command("snappea", [word for word in arguments if word != "--traceback"])
    assert code in (0, 1, 2)
    assert code == 0 or said.strip(), "what is wrong is said"


@fuzz(60)
@given(
    arguments=st.lists(
        st.sampled_from(["--workers", "--queues", "--exclude-queues", "--strict", "--burst", "--max-tasks"])
        | st.sampled_from(["--reload", "-v0", "--help"])
        | VALUES,
        max_size=4,
    )
)
def test_any_command_line_of_the_foreman(site: Site, arguments: list[str]) -> None:
    """Except its work: a setting stops it before it begins."""
    with override_settings(SNAPPEA={**site.settings, "TASK_ALWAYS_EAGER": True}):
        code, said = run_command("runsnappea", [word for word in arguments if word != "--traceback"])
    assert code in (1, 2) or "--help" in arguments or "-h" in arguments
    assert code == 0 or said.strip()


@fuzz(30)
@given(queues=st.lists(TEXTS, max_size=3), strict=st.booleans(), workers=st.integers(1, 10**25))
def test_any_queues_and_workers(site: Site, queues: list[str], strict: bool, workers: int) -> None:
    try:
        foreman = Foreman(queues, strict, NUM_WORKERS=workers)
    except CannotStart as error:
        assert str(error)
        return
    assert workers == foreman.settings.NUM_WORKERS


# envelopes

EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "event_id": st.uuids().map(lambda number: number.hex) | JSON,
        "exception": st.fixed_dictionaries(
            {
                "values": st.lists(
                    JSON | st.dictionaries(st.sampled_from(["type", "value", "stacktrace"]), JSON), max_size=2
                )
            }
        )
        | JSON,
        "message": JSON,
        "logentry": st.fixed_dictionaries({"message": JSON}) | JSON,
        "logger": JSON,
    },
)
ITEMS = st.tuples(st.sampled_from(["event", "session", "attachment"]) | JSON, EVENTS | JSON, st.none() | JSON)


def _envelope(headers: Any, items: list[tuple[Any, Any, Any]]) -> bytes:
    lines = [json.dumps(headers)]
    for kind, payload, length in items:
        text = json.dumps(payload)
        lines += [json.dumps({"type": kind, "length": len(text) if length is None else length}), text]
    return "\n".join(lines).encode()


ENVELOPES = st.builds(
    _envelope,
    st.fixed_dictionaries({}, optional={"event_id": st.uuids().map(str) | JSON}) | JSON,
    st.lists(ITEMS, max_size=2),
)
BODIES = (
    ENVELOPES | st.binary() | st.tuples(ENVELOPES, st.binary(max_size=4)).map(lambda two: two[0] + two[1])
)
PACKED = st.one_of(
    BODIES.map(lambda body: (body, "")),
    BODIES.map(lambda body: (gzip.compress(body), "gzip")),
    BODIES.map(lambda body: (zlib.compress(body)[:-2], "deflate")),
    st.tuples(BODIES, st.sampled_from(["gzip", "deflate", "br", " GZIP ", "é"])),
)


@fuzz(150)
@given(
    packed=PACKED,
    key=st.just("a-key") | st.text(st.characters(max_codepoint=255, exclude_characters="\r\n")),
    project=st.just(1) | st.integers(0, 10**30),
)
def test_any_bytes_for_the_envelope_endpoint(
    site: Site, packed: tuple[bytes, str], key: str, project: int
) -> None:
    body, encoding = packed
    Event.objects.all().delete()
    Issue.objects.all().delete()
    Task.objects.all().delete()
    answer = Client().generic(
        "POST",
        f"/api/{project}/envelope/",
        body,
        HTTP_X_SENTRY_AUTH=f"Sentry sentry_version=7, sentry_key={key}",
        HTTP_CONTENT_ENCODING=encoding,
    )
    assert 200 <= answer.status_code < 300 or 400 <= answer.status_code < 500, answer.content
    stored, tasks = Event.objects.count(), Task.objects.count()
    assert stored == tasks <= (answer.status_code < 300), "an event and its task, or neither"
    if tasks:
        claim = store.claim_any(raw(connect()), now())
        assert claim and not (outcome := execute.execute(claim, TaskHandle())).error, outcome.error
        assert Event.objects.get().issue
