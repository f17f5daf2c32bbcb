"""The charts of the dashboard as plain geometry, which a template draws as SVG without script or style."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from django.utils import timezone

from ..monitoring.formatting import duration
from ..queue.clock import as_datetime
from ..stats import Period

WIDTH, HEIGHT = 560, 150
#: The margins, for the labels.
LEFT, RIGHT, TOP, BOTTOM = 52, 6, 8, 20
#: An axis treats a smaller value as 0.
LEAST = 1e-9


class Bar(NamedTuple):
    """A rectangle. `kind` is its class in the style sheet."""

    kind: str
    x: float
    y: float
    width: float
    height: float


class Line(NamedTuple):
    """A line as the `d` of an SVG path; `area`: the same, closed along the bottom."""

    kind: str
    path: str
    area: str


class Series(NamedTuple):
    """The values of a line, or of the bars of a color; None where the value is unknown."""

    kind: str
    label: str
    values: Sequence[float | None]


class Chart(NamedTuple):
    """What the template draws. `summary`: the same as a sentence, for screen readers."""

    name: str
    title: str
    summary: str
    legend: list[tuple[str, str]]
    bars: list[Bar]
    lines: list[Line]
    #: The labels of the vertical axis with their height, and those of the horizontal axis.
    marks: list[tuple[float, str]]
    times: list[tuple[float, str, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT


def history_charts(periods: list[Period], minutes: int, hours: int) -> list[Chart]:
    """Return the charts of the last hours. `minutes`: the length of a period."""
    times = [_clock(period.minute) for period in periods]
    done, failed = [period.done for period in periods], [period.failed for period in periods]
    ended = [Series("done", "done", done), Series("failed", "failed", failed)]
    said = f"In the last {hours} hours {sum(done):,} were done and {sum(failed):,} failed."
    per = "minute" if minutes == 1 else f"{minutes} minutes"
    backlog = [period.backlog for period in periods]
    most = max((count for count in backlog if count is not None), default=0)
    return [
        stacked("ended", f"Done and failed per {per}", said, ended, times),
        _times_chart("wait", "Wait in the queue", periods, times),
        _times_chart("run", "Run time", periods, times),
        lines(
            "backlog",
            "Backlog",
            f"At most {most:,} tasks were ready at the end of a minute.",
            [Series("backlog", "ready tasks", backlog)],
            times,
            number,
        ),
    ]


def _times_chart(kind: str, title: str, periods: list[Period], times: list[str]) -> Chart:
    def values(what: str) -> list[float | None]:
        return [getattr(period, f"{kind}_{what}") if period.runs else None for period in periods]

    runs = sum(period.runs for period in periods)
    average = sum(getattr(period, f"{kind}_sum") for period in periods) / runs if runs else None
    longest = max((value for value in values("max") if value is not None), default=None)
    said = f"{duration(average)} on average, {duration(longest)} at most."
    series = [Series("most", "longest", values("max")), Series("mean", "mean", values("mean"))]
    return lines(kind, title, said, series, times, duration)


def _clock(minute: str) -> str:
    moment = as_datetime(minute)
    return f"{timezone.localtime(moment) if timezone.is_aware(moment) else moment:%H:%M}"


def stacked(name: str, title: str, summary: str, series: Sequence[Series], times: Sequence[str]) -> Chart:
    """Return a chart of stacked bars."""
    count = len(times)
    top = nice(max((sum(one.values[at] or 0 for one in series) for at in range(count)), default=0), True)
    step = (WIDTH - LEFT - RIGHT) / max(count, 1)
    bars, floor = [], [0.0] * count
    for one in series:
        for at, value in enumerate(one.values):
            if value:
                high = _y(floor[at] + value, top)
                height = _y(floor[at], top) - high
                bars.append(Bar(one.kind, _r(LEFT + at * step), high, _r(max(step - 0.8, 0.6)), _r(height)))
                floor[at] += value
    legend = [(one.kind, one.label) for one in series]
    return Chart(name, title, summary, legend, bars, [], _marks(top, number), _labels(times))


def lines(
    name: str,
    title: str,
    summary: str,
    series: Sequence[Series],
    times: Sequence[str],
    write: Callable[[float], str],
) -> Chart:
    """Return a chart of lines. `write`: formats a value for the axis."""
    values = (value for one in series for value in one.values if value)
    top = nice(max(values, default=0), is_whole=write is number)
    step = (WIDTH - LEFT - RIGHT) / max(len(times), 1)
    drawn = [_line(one, step, top) for one in series]
    legend = [(one.kind, one.label) for one in series]
    return Chart(name, title, summary, legend, [], drawn, _marks(top, write), _labels(times))


def _line(series: Series, step: float, top: float) -> Line:
    """Return a line with a gap where values are unknown."""
    path = area = ""
    bottom = HEIGHT - BOTTOM
    for part in _parts(series.values, step, top):
        (first, y), (last, _) = part[0], part[-1]
        joined = "".join(f"L{x} {y}" for x, y in part[1:])
        path += f"M{first} {y}h0.01{joined}"  # so that a single point is visible
        area += f"M{first} {y}{joined}L{last} {bottom}L{first} {bottom}Z"
    return Line(series.kind, path, area)


def _parts(values: Sequence[float | None], step: float, top: float) -> list[list[tuple[float, float]]]:
    """Return the points of each run of known values."""
    parts: list[list[tuple[float, float]]] = [[]]
    for at, value in enumerate(values):
        if value is not None:
            parts[-1].append((_r(LEFT + (at + 0.5) * step), _y(value, top)))
        elif parts[-1]:
            parts.append([])
    return [part for part in parts if part]


def _marks(top: float, write: Callable[[float], str]) -> list[tuple[float, str]]:
    return [(_y(value, top), write(value)) for value in (0, top / 2, top)]


def _labels(times: Sequence[str]) -> list[tuple[float, str, str]]:
    if not times:
        return []
    middle = (LEFT + WIDTH - RIGHT) / 2, "middle", times[len(times) // 2]
    return [(LEFT, "start", times[0]), middle, (WIDTH - RIGHT, "end", times[-1])]


def nice(value: float, is_whole: bool = False) -> float:
    """Return a round number that is not less: where an axis ends."""
    if value < LEAST or (is_whole and value <= 2):
        return 2.0 if is_whole else 1.0
    power = 10.0 ** math.floor(math.log10(value))
    found = next(factor * power for factor in (1, 2, 4, 5, 6, 8, 10) if value <= factor * power * (1 + 1e-9))
    return float(math.ceil(found / 2) * 2 if is_whole else found)


def number(value: float) -> str:
    """Format a whole number for an axis."""
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value:,.0f}"


def _y(value: float, top: float) -> float:
    return _r(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(value / top, 1.0))


def _r(value: float) -> float:
    return round(value, 2)
