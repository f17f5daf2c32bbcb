"""The dashboard's charts as plain geometry. A template draws them as SVG without scripts or styles."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..monitoring.formatting import duration
from ..queue.clock import as_datetime, as_local
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
    """A line as the `d` of an SVG path; `area`: the area below it."""

    kind: str
    path: str
    area: str


class Series(NamedTuple):
    """The values of a line, or of the bars of one color; None where unknown."""

    kind: str
    label: str
    values: Sequence[float | None]


class Chart:
    """What the template draws. `summary`: the same in a sentence, for screen readers.

    `clock`: the labels of the time axis, one per value. `write`: formats a value for the other axis.
    """

    width, height, left, right = WIDTH, HEIGHT, LEFT, WIDTH - RIGHT
    bars: Sequence[Bar] = ()
    lines: Sequence[Line] = ()

    def __init__(
        self,
        name: str,
        title: str,
        summary: str,
        series: Sequence[Series],
        clock: Sequence[str],
        write: Callable[[float], str],
        is_stacked: bool = False,
    ) -> None:
        self.name, self.title, self.summary = name, title, summary
        self.legend = [(one.kind, one.label) for one in series]
        self._step = (WIDTH - LEFT - RIGHT) / max(len(clock), 1)
        columns = [
            [value or 0 for value in column] for column in zip(*(one.values for one in series), strict=True)
        ]
        most = max(map(sum if is_stacked else max, columns), default=0)
        self._top = nice(most, is_whole=write is number)
        if is_stacked:
            self.bars = self._stack(series)
        else:
            self.lines = [self._line(one) for one in series]
        self.marks = [(self._y(value), write(value)) for value in (0, self._top / 2, self._top)]
        middle = (LEFT + WIDTH - RIGHT) / 2
        places = ((LEFT, "start", 0), (middle, "middle", len(clock) // 2), (WIDTH - RIGHT, "end", -1))
        self.times = [(x, anchor, clock[at]) for x, anchor, at in places if clock]

    def _stack(self, series: Sequence[Series]) -> list[Bar]:
        bars, floor = [], [0.0] * len(series[0].values)
        for one in series:
            for at, value in enumerate(one.values):
                if value:
                    y = self._y(floor[at] + value)
                    height = _r(self._y(floor[at]) - y)
                    bars.append(
                        Bar(one.kind, _r(LEFT + at * self._step), y, _r(max(self._step - 0.8, 0.6)), height)
                    )
                    floor[at] += value
        return bars

    def _line(self, series: Series) -> Line:
        """Return a line with a gap where values are unknown."""
        parts: list[list[tuple[float, float]]] = [[]]
        for at, value in enumerate(series.values):
            if value is not None:
                parts[-1].append((_r(LEFT + (at + 0.5) * self._step), self._y(value)))
            elif parts[-1]:
                parts.append([])
        path = area = ""
        bottom = HEIGHT - BOTTOM
        for part in filter(None, parts):
            (first, y), (last, _) = part[0], part[-1]
            joined = "".join(f"L{x} {y}" for x, y in part[1:])
            path += f"M{first} {y}h0.01{joined}"  # so that a single point is visible
            area += f"M{first} {y}{joined}L{last} {bottom}L{first} {bottom}Z"
        return Line(series.kind, path, area)

    def _y(self, value: float) -> float:
        return _r(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(value / self._top, 1.0))


def history_charts(periods: list[Period], minutes: int, hours: int) -> list[Chart]:
    """Return the charts of the last hours. `minutes`: the length of a period."""
    clock = [f"{as_local(as_datetime(period.minute)):%H:%M}" for period in periods]
    done, failed = [period.done for period in periods], [period.failed for period in periods]
    ended = [Series("done", "done", done), Series("failed", "failed", failed)]
    said = f"In the last {hours} hours {sum(done):,} were done and {sum(failed):,} failed."
    title = f"Done and failed per {'minute' if minutes == 1 else f'{minutes} minutes'}"
    backlog = [period.backlog for period in periods]
    most = max((count for count in backlog if count is not None), default=0)
    ready = [Series("backlog", "ready tasks", backlog)]
    return [
        Chart("ended", title, said, ended, clock, number, is_stacked=True),
        _times_chart("wait", "Wait in the queue", periods, clock),
        _times_chart("run", "Run time", periods, clock),
        Chart(
            "backlog",
            "Backlog",
            f"At most {most:,} tasks were ready at the end of a minute.",
            ready,
            clock,
            number,
        ),
    ]


def _times_chart(kind: str, title: str, periods: list[Period], clock: list[str]) -> Chart:
    def values(what: str) -> list[float | None]:
        return [getattr(period, f"{kind}_{what}") if period.runs else None for period in periods]

    runs = sum(period.runs for period in periods)
    average = sum(getattr(period, f"{kind}_sum") for period in periods) / runs if runs else None
    longest = max((value for value in values("max") if value is not None), default=None)
    said = f"{duration(average)} on average, {duration(longest)} at most."
    series = [Series("most", "longest", values("max")), Series("mean", "mean", values("mean"))]
    return Chart(kind, title, said, series, clock, duration)


def nice(value: float, is_whole: bool = False) -> float:
    """Return the next round number, for the end of an axis."""
    if value < LEAST or (is_whole and value <= 2):
        return 2.0 if is_whole else 1.0
    power = 10.0 ** math.floor(math.log10(value))
    found = next(factor * power for factor in (1, 2, 4, 5, 6, 8, 10) if value <= factor * power * (1 + 1e-9))
    return float(math.ceil(found / 2) * 2 if is_whole else found)


def number(value: float) -> str:
    """Format a whole number for an axis."""
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value:,.0f}"


def _r(value: float) -> float:
    return round(value, 2)
