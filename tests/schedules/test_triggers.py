"""When schedules are due: compared with cronsim, over years and time zones, and when clocks change."""

import sys
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from snappea.errors import ConfigurationError, ExtraMissing
from snappea.schedules.triggers import Every, Trigger, interval, trigger

ZONES = [
    "UTC",
    "Europe/Amsterdam",
    "America/New_York",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",  # half an hour of summer time
    "Asia/Kathmandu",
    "Pacific/Apia",  # left out a whole day
    "Africa/Casablanca",
]
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2036, 1, 1), timezones=st.just(UTC))


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda two: f"{min(two)}-{max(two)}")
    step = st.integers(1, high).map(lambda by: f"*/{by}")
    return st.one_of(st.just("*"), number.map(str), span, step, st.lists(number, min_size=2).map(_listed))


def _listed(numbers: list[int]) -> str:
    return ",".join(map(str, numbers))


EXPRESSIONS = st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 7)).map(" ".join)


def ticks_after(ticks: Trigger, moment: datetime, count: int) -> list[datetime]:
    found: list[datetime] = []
    while len(found) < count:
        following = ticks.after(moment, moment)
        assert following is not None and following > moment
        found.append(moment := following)
    return found


@settings(max_examples=300, deadline=None)
@given(EXPRESSIONS, st.sampled_from(ZONES), MOMENTS)
def test_the_ticks_are_those_of_cronsim(expression: str, zone: str, start: datetime) -> None:
    """Tick by tick, as the Foreman asks, gives the same as cronsim's iterator."""
    theirs = (tick.astimezone(UTC) for tick in CronSim(expression, start.astimezone(ZoneInfo(zone))))
    expected = list(islice((tick for tick in theirs if tick > start), 8))
    assert ticks_after(trigger(expression, zone), start, 8) == expected


@settings(max_examples=200, deadline=None)
@given(EXPRESSIONS, st.sampled_from(ZONES), MOMENTS, st.integers(0, 10**9))
def test_the_latest_tick_is_the_one_before_the_next(
    expression: str, zone: str, start: datetime, microseconds: int
) -> None:
    ticks = trigger(expression, zone)
    first, second, third = ticks_after(ticks, start, 3)
    between = min(second + timedelta(microseconds=microseconds), third - timedelta(microseconds=1))
    assert ticks.latest(between, first) == second
    assert ticks.latest(second, first) == second


@settings(max_examples=200, deadline=None)
@given(MOMENTS, st.floats(0.001, 1e9), st.floats(0, 1e9))
def test_every(start: datetime, seconds: float, late: float) -> None:
    ticks, moment = Every(seconds), start + timedelta(seconds=late)
    latest, following = ticks.latest(moment, start), ticks.after(moment, start)
    assert following and latest <= moment < following
    assert following - latest == timedelta(seconds=seconds)
    assert not (latest - start) % timedelta(seconds=seconds), "they stay on the grid of the first"


def test_every_without_a_last_one_or_after_the_clock_was_set_back() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert Every(60).after(start) == start + timedelta(seconds=60)
    assert Every(60).after(start, start + timedelta(hours=1)) == start + timedelta(seconds=60)


def local_ticks(expression: str, day: datetime, zone: str = "Europe/Amsterdam") -> list[str]:
    """Return the ticks of one day, in local time."""
    here = ZoneInfo(zone)
    start = day.replace(tzinfo=here) - timedelta(seconds=1)
    ticks, end = trigger(expression, zone), day.replace(tzinfo=here) + timedelta(days=1)
    found, moment = [], start.astimezone(UTC)
    while (following := ticks.after(moment, moment)) and following < end.astimezone(UTC):
        found.append(f"{following.astimezone(here):%H:%M %Z}")
        moment = following
    return found


SPRING, AUTUMN = datetime(2026, 3, 29), datetime(2026, 10, 25)


def test_a_job_at_half_past_two_runs_once_on_both_days_on_which_the_clock_is_changed() -> None:
    assert local_ticks("30 2 * * *", SPRING) == ["03:00 CEST"]
    assert local_ticks("30 2 * * *", AUTUMN) == ["02:30 CEST"]


def test_jobs_of_each_hour_go_on_through_both() -> None:
    assert local_ticks("0 * * * *", SPRING)[:4] == ["00:00 CET", "01:00 CET", "03:00 CEST", "04:00 CEST"]
    assert local_ticks("0 * * * *", AUTUMN)[1:4] == ["01:00 CEST", "02:00 CEST", "02:00 CET"]
    assert len(local_ticks("*/5 * * * *", SPRING)) == 23 * 12
    assert len(local_ticks("*/5 * * * *", AUTUMN)) == 25 * 12


@pytest.mark.parametrize("second_hour", [0, 10, 40])
def test_asked_in_the_second_of_two_equal_hours(second_hour: int) -> None:
    """Ticks of the first of the two hours are not repeated."""
    here = ZoneInfo("Europe/Amsterdam")
    moment = datetime(2026, 10, 25, 2, second_hour, tzinfo=here, fold=1).astimezone(UTC)
    following = trigger("30 2 * * *", "Europe/Amsterdam").after(moment)
    assert following == datetime(2026, 10, 26, 2, 30, tzinfo=here).astimezone(UTC)


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("61 * * * *", "the minute '61' is wrong"),
        ("* 24 * * *", "the hour '24' is wrong"),
        ("* * 32 * *", "the day-of-month '32' is wrong"),
        ("* * * foo *", "the month 'foo' is wrong"),
        ("* * * * mon-xyz", "the day-of-week 'mon-xyz' is wrong"),
        ("99 * * * * *", "the second '99' is wrong"),
        ("*/0 * * * *", "the minute '*/0' is wrong"),
        ("* * *", "needs five fields (minute, hour, day-of-month, month, day-of-week), or six with seconds"),
        ("", "it has 0"),
        ("@daily", "it has 1"),
        ("0 0 30 2 *", "the day-of-month '30' is wrong"),
        ("0 0 * 2 mon#5 ", None),  # leap years with five Mondays in February: rare, but there are some
        ("0 0 31 2,4 *", "the day-of-month '31' is wrong"),
    ],
)
def test_what_is_wrong_with_an_expression(expression: str, fault: str | None) -> None:
    if fault is None:
        assert trigger(expression, "UTC").after(datetime.now(UTC))
        return
    with pytest.raises(ConfigurationError) as raised:
        trigger(expression, "UTC")
    assert fault in str(raised.value) and repr(expression) in str(raised.value)


@pytest.mark.parametrize(
    "expression", ["every x s", "every 0 s", "every -1 s", "every nan s", "every 1e400 s"]
)
def test_a_row_that_was_changed_by_hand(expression: str) -> None:
    with pytest.raises(ConfigurationError, match="is not an interval"):
        trigger(expression, "UTC")


@pytest.mark.parametrize("zone", ["Europe/Amstrdam", "", "../../etc/passwd", "Europe", "\0"])
def test_a_zone_that_does_not_exist(zone: str) -> None:
    with pytest.raises(ConfigurationError, match="there is no such time zone"):
        trigger("* * * * *", zone)


def test_without_cronsim_the_error_names_the_extra(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(ExtraMissing, match=r"pip install 'django-snappea\[cron\]'"):
        trigger("* * * * *", "UTC")
    assert trigger("every 5 s", "UTC").after(datetime.now(UTC)), "which is ours, and needs nothing"


@pytest.mark.parametrize("seconds", [600, 0.25, 1e9, timedelta(days=1), timedelta(minutes=10), 1234567.125])
def test_an_interval_and_its_expression(seconds: Any) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    distance = seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)
    assert trigger(interval(seconds), "UTC").after(start) == start + distance
    assert interval(timedelta(minutes=10)) == "every 600 s"
