"""What is handed around: a call before it is written, a claim, and what became of it."""

import functools
import json
import re
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias, cast, get_type_hints

from ..errors import OutcomeNotWritten

#: What is kept of the traceback of each attempt for django.tasks, in characters.
MAX_TRACEBACK = 5000
#: What is kept of the reason why an outcome could not be written, in characters.
MAX_REFUSAL = 500
#: A line of a traceback.
_PLACE = re.compile(r'\s*File "(.*)", line (\d+), in (.*)')


class Extras(NamedTuple):
    """What a call may have beside: the columns that most calls leave alone."""

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


class Call(NamedTuple):
    """What is written of one call of a task function: the row, but for what the queue adds."""

    task_name: str
    args: str
    kwargs: str
    queue: str
    priority: int
    #: 0 or 1, as is `is_async`.
    acks_late: int
    is_async: int = 0
    extras: Extras | None = None


class Origin(NamedTuple):
    """What a claim carries of a task that a django.tasks backend enqueued."""

    backend: str
    overrides: str | None
    started_at: str
    first_started_at: str | None
    errors: str


class ClaimExtras(NamedTuple):
    """What few tasks have. A claim carries it as a JSON object with these names."""

    #: How long to keep the result, in seconds; None: not at all.
    result_ttl: int | float | None = None
    #: The concurrency group, and the seconds between two starts in it.
    lane: str | None = None
    lane_interval: int | float | None = None
    interruptions: int = 0
    #: The task that enqueued it; text, where Celery did.
    parent_id: int | str | None = None
    #: After when it must not be started, and since when it could have been.
    expires_at: str | None = None
    run_after: str | None = None
    is_sensitive: int = False
    origin: Origin | None = None

    def as_json(self) -> str:
        """Return what the database would."""
        return json.dumps(self._asdict() | {"origin": self.origin and self.origin._asdict()})


_KINDS = get_type_hints(ClaimExtras)
_NO_EXTRAS = ClaimExtras()


@functools.lru_cache(maxsize=1000)  # a claim is asked ten times
def parse_extras(text: str) -> ClaimExtras:
    """Return the extras of a claim. Raises ValueError for a value of the wrong type.

    That is checked while the task is claimed: later its outcome could not be written.
    """
    found = json.loads(text)
    if found.get("origin"):
        found["origin"] = Origin(**found["origin"])
    for name, value in found.items():
        if not isinstance(value, _KINDS[name]):
            raise ValueError(f"{name} of a task cannot be {value!r}")
    return ClaimExtras(**found)


#: What tells a claim from every other one: the id and `claims` of its row, and when it was claimed.
Fence: TypeAlias = "tuple[int, int, str | None]"


class Claim(NamedTuple):
    """A task that was claimed. `order` sorts before `id`: by priority, then first in, first out."""

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
    #: When it was claimed, as it stands on the row: ids may come again, moments do not.
    started_at: str | None = None
    #: A ClaimExtras as JSON; None, and so nothing to parse, for most tasks.
    extras: str | None = None

    @property
    def fence(self) -> Fence:
        """What must still stand on its row for the claim to be in force."""
        return self.id, self.claims, self.started_at

    @property
    def more(self) -> ClaimExtras:
        """Its extras."""
        return parse_extras(self.extras) if self.extras else _NO_EXTRAS

    @property
    def result_ttl(self) -> float | None:
        """How long its result is kept, in seconds; None: not at all."""
        return self.more.result_ttl

    @property
    def lane(self) -> str | None:
        """Its concurrency group."""
        return self.more.lane

    @property
    def lane_interval(self) -> float | None:
        """How many seconds lie between two starts in its concurrency group."""
        return self.more.lane_interval

    @property
    def interruptions(self) -> int:
        """How often it was interrupted."""
        return self.more.interruptions

    @property
    def parent_id(self) -> int | None:
        """The task that enqueued it."""
        return cast(int | None, self.more.parent_id)

    @property
    def expires_at(self) -> str | None:
        """After when it is not to be started."""
        return self.more.expires_at

    @property
    def due(self) -> str:
        """Since when it could have been started."""
        return self.more.run_after or self.enqueued_at

    @property
    def is_sensitive(self) -> bool:
        """Whether its arguments are not to be shown."""
        return bool(self.more.is_sensitive)

    @property
    def origin(self) -> Origin | None:
        """What it was enqueued by, if that is a backend of django.tasks."""
        return self.more.origin


class Outcome(NamedTuple):
    """What became of a claim after `duration` seconds.

    `error` is the text that is kept, and `reason` the same in one line; both are empty if it succeeded.
    With a `retry_after`, in seconds, it is tried again; if it `is_revoked` somebody asked for its end.
    `result` is its result as JSON, if that is kept. `exception` is the path of its class; the `failure`
    itself is kept for those who hear of it by django.tasks' signals.
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
        """Return the failure that takes its place if the database refuses to write it."""
        from ..log import clean

        kind = OutcomeNotWritten
        why = f"{kind.__name__}: the database refused what became of it: {clean(repr(error))}"[:MAX_REFUSAL]
        exception = f"{kind.__module__}.{kind.__name__}"
        return Outcome(self.claim, self.duration, why, why, exception=exception)

    def cause(self) -> tuple[str, str]:
        """Return the exception of a failure, and the place that raised it, by which failures are grouped."""
        place = ""
        if found := _PLACE.match(self.error, self.error.rfind('  File "')):
            place = f"{'/'.join(found[1].split('/')[-2:])}:{found[2]} in {found[3]}"
        return self.reason.partition(":")[0][:200], place[:300]

    def error_line(self, moment: str) -> str:
        """Return what stays on the row of an attempt that did not succeed: more, for django.tasks."""
        if self.claim.origin is None:
            return error_line(moment, self.reason)
        from ..log import shortened

        traceback = shortened(self.error, MAX_TRACEBACK)
        return error_line(moment, self.reason, exception=self.exception, traceback=traceback)


def error_line(moment: str, reason: str, **more: str) -> str:
    """Return what stays of an attempt that did not succeed; the statement adds which one it was."""
    return json.dumps({"attempt": None, "at": moment, "error": reason, **more}, ensure_ascii=bool(more))


class Progress(NamedTuple):
    """How far a claim is, by its own word."""

    done: float
    total: float | None
    note: str
    id: int
    claims: int
    started_at: str | None


class ForemanInfo(NamedTuple):
    """A Foreman at work, as it describes itself. `stuck`: the ids of tasks that should have ended.

    `is_here`: whether its pid means the same process here. In another container it does not.
    `number`: its id where several Foremen may share a queue.
    """

    pid: int
    host: str
    since: datetime
    workers: int
    stuck: list[int]
    is_here: bool
    number: int | None = None


class Expired(NamedTuple):
    """A row that went because its time had passed."""

    id: int
    task_name: str
    status: str
    lane: str | None


class Recovered(NamedTuple):
    """A task that a dead Foreman left running, and what became of it."""

    id: int
    task_name: str
    verdict: str
    status: str | None = None


class Unusable(NamedTuple):
    """A row that nobody can work with. `instead`: what is to be put into which columns."""

    id: int
    instead: dict[str, Any]
    why: str


class Peek(NamedTuple):
    """What there is to do; `first` and `last`: of the queues with something to claim for a thread."""

    due: str | None
    first: str | None
    last: str | None
    has_async: bool
    expiry: str | None
    has_revoked: bool
    has_newcomers: bool
    has_pauses: bool
    has_unheard: bool
    has_addressed: bool
    tick: str | None
