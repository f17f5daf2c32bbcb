"""The values that the queue passes around: a call, a claim, an outcome, what peek() found."""

import functools
import itertools
import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias, get_type_hints

from ..errors import OutcomeNotWritten

#: The most characters kept of each attempt's traceback for django.tasks.
MAX_TRACEBACK = 5000
#: The most characters kept of the reason why an outcome could not be written.
MAX_REFUSAL = 500
#: How much is kept of a task's log: half of it from the beginning, half from the end.
MOST_LINES, MAX_LOG = 1000, 64_000  # characters
#: Matches the line that counts those that are left out.
LEFT_OUT = re.compile(r"\d{1,18}").fullmatch
#: The attributes of a record about a task, with the attributes of a claim that they come from.
FIELDS = {"task_id": "id", "task_name": "task_name", "queue": "queue", "attempt": "attempts", "duration": ""}
_TRACEBACK_LINE = re.compile(r'\s*File "(.*)", line (\d+), in (.*)')


class UniqueRule(NamedTuple):
    """What decides about identical calls, in addition to the indexes of `unique_key`."""

    #: For how many seconds after a call no identical one is enqueued.
    seconds: float | None = None
    #: What happens to an identical call: "discard", "replace" or "raise".
    on_conflict: str = "discard"
    #: How many seconds after the first call a replaced one is due at the latest.
    latest: float | None = None


class Extras(NamedTuple):
    """The columns that few calls set, in the order of INSERT_MORE; the last field is not a column."""

    run_after: str | None = None
    expires_at: str | None = None
    result_ttl: float | None = None
    parent_id: int | None = None
    unique_key: str | None = None
    unique_running: bool = False
    lane: str | None = None
    lane_limit: int | None = None
    lane_interval: float | None = None
    is_sensitive: bool = False
    backend: str | None = None
    overrides: str | None = None
    keeps_result: bool = True
    tags: str = ""
    lane_burst: int | None = None
    batch_id: int | None = None
    fair_key: str | None = None
    lane_discards: bool = False
    unique_rule: UniqueRule | None = None


class Call(NamedTuple):
    """One call of a task: the columns of its row, without those that the queue adds."""

    task_name: str
    args: str
    kwargs: str
    queue: str
    priority: int
    #: 0 or 1, like `is_async`.
    acks_late: int
    is_async: int = 0
    extras: Extras | None = None


class Alike(Sequence[Call]):
    """Calls without extras that are equal except for their `args`; faster to make than each call."""

    def __init__(self, first: Call, args: list[str]) -> None:
        self.first, self.args = first, args

    def __len__(self) -> int:
        return len(self.args)

    def __getitem__(self, position: Any) -> Any:
        return self.first._replace(args=self.args[position])


class Origin(NamedTuple):
    """The extras of a task that a django.tasks backend enqueued."""

    backend: str
    overrides: str | None
    started_at: str
    first_started_at: str | None
    errors: str


class ClaimExtras(NamedTuple):
    """The values that few tasks have. A claim carries them as a JSON object with these names."""

    #: How long to keep the row, in seconds; None: not at all.
    result_ttl: int | float | None = None
    #: Whether to keep the result with it.
    keeps_result: int = True
    #: The concurrency group, and the seconds between two starts in it.
    lane: str | None = None
    lane_interval: int | float | None = None
    interruptions: int = 0
    #: The task that enqueued it; text for Celery.
    parent_id: int | str | None = None
    #: The batch that it is a member of.
    batch_id: int | None = None
    #: Whether its result goes to the call that follows it.
    passes_result: int = False
    #: When it is too late to start, and from when it could start.
    expires_at: str | None = None
    run_after: str | None = None
    is_sensitive: int = False
    origin: Origin | None = None

    def as_json(self) -> str:
        """Return the JSON that the database would return."""
        return json.dumps(self._asdict() | {"origin": self.origin and self.origin._asdict()})


_KINDS = get_type_hints(ClaimExtras)
_NO_EXTRAS = ClaimExtras()


@functools.lru_cache(maxsize=1000)  # a claim's extras are read ten times
def parse_extras(text: str) -> ClaimExtras:
    """Return the extras of a claim. Raises ValueError for a value of the wrong type.

    It is called while the task is claimed: later, its outcome could not be written.
    """
    found = json.loads(text)
    if found.get("origin"):
        found["origin"] = Origin(**found["origin"])
    for name, value in found.items():
        if not isinstance(value, _KINDS[name]):
            raise ValueError(f"{name} of a task cannot be {value!r}")
    return ClaimExtras(**found)


#: Identifies one claim of a task: the id and `claims` of its row, and when it was claimed.
Fence: TypeAlias = tuple[int, int, str | None]


class Claim(NamedTuple):
    """A claimed task. Claims sort by priority (`order`), then first in, first out (`id`)."""

    order: int
    id: int
    claims: int
    task_name: str
    args: str
    kwargs: str
    queue: str = "default"
    attempts: int = 1
    enqueued_at: str = ""
    is_async: bool = False
    #: When it was claimed. SQLite may reuse the id of a deleted row.
    started_at: str | None = None
    #: Its ClaimExtras; None, with nothing to parse, for most tasks.
    extras_json: str | None = None

    @property
    def fence(self) -> Fence:
        """The values that its row must still have for the claim to be in force."""
        return self.id, self.claims, self.started_at

    @property
    def extras(self) -> ClaimExtras:
        """The values that few tasks have."""
        return parse_extras(self.extras_json) if self.extras_json else _NO_EXTRAS

    @property
    def retries(self) -> int:
        """How often it was retried so far."""
        return self.attempts - 1 - self.extras.interruptions

    @property
    def lane(self) -> str | None:
        """Its concurrency group."""
        return self.extras.lane

    @property
    def is_sensitive(self) -> bool:
        """Whether its arguments must not be shown."""
        return bool(self.extras.is_sensitive)

    @property
    def is_kept(self) -> bool:
        """Whether its row is kept after it has succeeded."""
        return self.extras.result_ttl is not None

    @property
    def uses_result(self) -> bool:
        """Whether its result is kept, or passed on."""
        extras = self.extras
        return bool(extras.passes_result or (extras.result_ttl is not None and extras.keeps_result))

    @property
    def due(self) -> str:
        """From when it could start."""
        return self.extras.run_after or self.enqueued_at


def about(task: Any, duration: float | None = None) -> dict[str, object]:
    """Return the attributes of a record about a task: FIELDS, as far as they are known.

    `task`: a claim, or another value with the id and the name of a task. `duration`: of its run, in seconds.
    """
    found = {field: getattr(task, name) for field, name in FIELDS.items() if hasattr(task, name)}
    return found if duration is None else found | {"duration": duration}


class Outcome(NamedTuple):
    """How a claim ended, after `duration` seconds.

    `error` is kept on the row, and `reason` is its one-line form; both are empty if the task succeeded. With
    `retry_after`, in seconds, it is retried. `result` is JSON, if it is kept. `exception` is the path of the
    exception's class; `failure` is the exception itself, for the signals of django.tasks.
    """

    claim: Claim
    duration: float
    error: str = ""
    reason: str = ""
    retry_after: float | None = None
    is_revoked: bool = False
    result: str | None = None
    exception: str = ""
    failure: BaseException | None = None

    def refused(self, error: Exception) -> "Outcome":
        """Return the failure that replaces it if the database refuses it."""
        from ..log import clean

        kind = OutcomeNotWritten
        why = f"{kind.__name__}: the database refused the outcome: {clean(repr(error))}"[:MAX_REFUSAL]
        return Outcome(self.claim, self.duration, why, why, exception=f"{kind.__module__}.{kind.__name__}")

    def cause(self) -> tuple[str, str]:
        """Return the exception's name and where it was raised; failures are grouped by both."""
        place = ""
        if found := _TRACEBACK_LINE.match(self.error, self.error.rfind('  File "')):
            place = f"{'/'.join(found[1].split('/')[-2:])}:{found[2]} in {found[3]}"
        return self.reason.partition(":")[0][:200], place[:300]

    def error_line(self, moment: str) -> str:
        """Return error_line() for a failed attempt; for django.tasks, with the traceback."""
        if self.claim.extras.origin is None:
            return error_line(moment, self.reason)
        from ..log import shortened

        traceback = shortened(self.error, MAX_TRACEBACK)
        return error_line(moment, self.reason, exception=self.exception, traceback=traceback)


def error_line(moment: str, reason: str, **more: str) -> str:
    """Return a line for the row's `errors`; the statement fills in the number of the attempt."""
    return json.dumps({"attempt": None, "at": moment, "error": reason, **more}, ensure_ascii=bool(more))


class Progress(NamedTuple):
    """The progress that a task has reported."""

    done: float
    total: float | None
    note: str
    id: int
    claims: int
    started_at: str | None


def added(log: str, lines: list[str]) -> str:
    """Return a task's log with new lines: the first and last ones, and a number that counts the others."""
    before = log.split("\n") if log else []
    if before and before[-1] in lines:  # they were committed, although the commit seemed to fail
        lines = lines[lines.index(before[-1]) + 1 :]
    lines = before + lines
    gap = next((position for position, line in enumerate(lines) if LEFT_OUT(line)), len(lines))
    first = _fitting(lines[:gap])
    others = [line for line in lines[len(first) :] if not LEFT_OUT(line)]
    last = _fitting(others[::-1])[::-1]
    left_out = len(others) - len(last) + sum(int(line) for line in lines if LEFT_OUT(line))
    return "\n".join([*first, *([str(left_out)] if left_out else []), *last])


def _fitting(lines: list[str]) -> list[str]:
    sizes = itertools.accumulate(len(line) + 1 for line in lines[: MOST_LINES // 2])
    return lines[: sum(size <= MAX_LOG // 2 for size in sizes)]


class ForemanInfo(NamedTuple):
    """A running Foreman, as it describes itself. `stuck`: the ids of tasks that should have ended.

    `is_here`: whether its pid is valid here, which it is not in another container. `number`: its id, if
    several Foremen may share the queue. `queues`: the only ones that it serves, in this order if it is
    `strict`, which is not known where several may share the queue; empty if it serves all.
    """

    pid: int
    host: str
    since: datetime
    workers: int
    stuck: list[int]
    is_here: bool
    number: int | None = None
    queues: Sequence[str] = ()
    strict: bool = False


class Expired(NamedTuple):
    """A row that was deleted because it had expired."""

    id: int
    task_name: str
    status: str
    lane: str | None
    batch_id: int | None = None


class Discarded(Expired):
    """A row that was deleted because the limits of its group did not let it start at once."""


class Newcomer(NamedTuple):
    """A task that has become ready, and is to be sorted in. Newcomers sort by their ids."""

    id: int
    lane: str | None
    fair_key: str | None
    #: Its place, if it has had one and was only given back.
    turn: int | None
    is_async: bool
    queue: str
    priority: int
    #: Whether it is discarded if it may not start at once.
    discards: int = False


class Recovered(NamedTuple):
    """A task that a dead Foreman left running, and its outcome."""

    id: int
    task_name: str
    outcome: str
    status: str | None = None


class Unusable(NamedTuple):
    """A row with invalid values. `instead`: the values to write, by column."""

    id: int
    instead: dict[str, Any]
    why: str


class Peek(NamedTuple):
    """What there is to do. `first` and `last`: the queues with claimable tasks for threads, by name."""

    due: str | None
    first: str | None
    last: str | None
    has_async: bool
    expiry: str | None
    has_revoked: bool
    has_newcomers: bool
    has_pauses: bool
    has_limits: bool
    has_unheard: bool
    has_addressed: bool
    tick: str | None
