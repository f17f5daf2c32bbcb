"""When a schedule is due: five or six fields of cron (by cronsim), or an interval such as "every 600 s"."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

from ..conf import is_interval
from ..errors import ConfigurationError, ExtraMissing

FIELDS = ("second", "minute", "hour", "day-of-month", "month", "day-of-week")
_EVERY = "every "
#: If a run of `every` is later than this, the following ticks move.
LATE = timedelta(seconds=1)


class Cron:
    """A cron expression in a time zone. When the clock changes, it follows the rules of Debian's cron.

    A job with a fixed hour runs once a day: if the hour occurs twice, in the first; if it is skipped, right
    after the change. A job with `*` as the hour or the minute runs in both hours.
    """

    def __init__(self, expression: str, zone: ZoneInfo) -> None:
        """Raises ExtraMissing without cronsim, and ConfigurationError for an invalid expression."""
        try:
            from cronsim import CronSim, CronSimError
        except ImportError:
            raise ExtraMissing(f"cron={expression!r} needs cronsim", "cron") from None
        self._make = CronSim
        self._expression = expression
        self._zone = zone
        try:
            is_ever = self.after(datetime.now(UTC))
        except CronSimError as error:
            raise ConfigurationError(f"cron={expression!r}: {_fault(expression, str(error))}.") from None
        if is_ever is None:
            raise ConfigurationError(f"cron={expression!r}: there is no such day in 50 years.")

    def after(self, moment: datetime, last: datetime | None = None) -> datetime | None:
        """Return the first tick after a moment; None if there is none in 50 years. `last` is unused."""
        ticks: Iterable[datetime] = self._make(self._expression, moment.astimezone(self._zone))
        # when an hour occurs twice, cronsim starts with the first
        return next((tick for tick in map(_utc, ticks) if tick > moment), None)

    def latest(self, moment: datetime, first: datetime) -> datetime:
        """Return the last tick up to a moment; at least `first`, a known tick."""
        end = (moment + timedelta(seconds=1)).replace(microsecond=0).astimezone(self._zone)
        ticks: Iterable[datetime] = self._make(self._expression, end, reverse=True)
        return max(first, next((tick for tick in map(_utc, ticks) if tick <= moment), first))

    def counted(self, moment: datetime, latest: datetime) -> datetime:
        """Return the tick that a run counts as: a late run does not move the next ones."""
        return latest

    def words(self) -> str:
        """Return the times in words, such as "At 03:00 every day"; in English, as cronsim has them."""
        words: str = self._make(self._expression, datetime.now(UTC)).explain()
        return words


class Every:
    """An interval: a tick every so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.interval = timedelta(seconds=seconds)

    def after(self, moment: datetime, last: datetime | None = None) -> datetime | None:
        """Return the first tick after a moment, counted from the last tick, or from the moment itself."""
        if last is None or last > moment:
            return moment + self.interval
        return self.latest(moment, last) + self.interval

    def latest(self, moment: datetime, first: datetime) -> datetime:
        """Return the last tick up to a moment."""
        return first + (moment - first) // self.interval * self.interval

    def counted(self, moment: datetime, latest: datetime) -> datetime:
        """Return the tick that a run counts as: its own time if it is late, which moves the next ones."""
        return moment if moment - latest > LATE else latest


#: Computes the ticks of an expression. All times are aware.
Trigger: TypeAlias = Cron | Every


def trigger(expression: str, zone: str) -> Trigger:
    """Return the Trigger of an expression. `zone`: the name of a time zone, for cron.

    Raises ConfigurationError if either is invalid, ExtraMissing without cronsim.
    """
    if expression.startswith(_EVERY):
        return Every(_seconds(expression))
    try:
        found = ZoneInfo(zone)
    except (OSError, ValueError, LookupError):  # no such zone, a path, a directory
        raise ConfigurationError(
            f"timezone={zone!r}: there is no such time zone; the names are as in 'Europe/Berlin'."
        ) from None
    return Cron(expression, found)


def interval(seconds: float | timedelta) -> str:
    """Return the expression of an interval.

    >>> interval(timedelta(minutes=10))
    'every 600 s'
    """
    number = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
    return f"{_EVERY}{int(number) if number.is_integer() else number} s"


def as_option(expression: str) -> dict[str, Any]:
    """Return an expression as the option that it is made from: `cron` or `every`. Raises ConfigurationError.

    >>> as_option("every 600 s")
    {'every': 600.0}
    """
    return {"every": _seconds(expression)} if expression.startswith(_EVERY) else {"cron": expression}


def _seconds(expression: str) -> float:
    try:
        seconds = float(expression.removeprefix(_EVERY).removesuffix(" s"))
    except ValueError:
        seconds = 0.0
    if not is_interval(seconds):
        raise ConfigurationError(f"{expression!r} is not an interval; write it as in 'every 600 s'.")
    return seconds


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def _fault(expression: str, error: str) -> str:
    """Return which field is wrong, and its value."""
    fields = expression.split()
    if len(fields) not in (5, 6):
        return (
            f"it needs five fields ({', '.join(FIELDS[1:])}), or six with seconds first; it has {len(fields)}"
        )
    names = FIELDS[-len(fields) :]
    named = error.removeprefix("Bad ")
    if named not in names:
        return error
    return f"the {named} {fields[names.index(named)]!r} is wrong"
