"""Charts as plain geometry, for a template to draw as SVG: no script, no style, no dependency."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 560, 150
#: What is left for the labels.
LEFT, RIGHT, TOP, BOTTOM = 52, 6, 8, 20
#: What is less is nothing, to an axis.
LEAST = 1e-9


class Bar(NamedTuple):
    """A rectangle. `kind` is its class in the style sheet."""

    kind: str
    x: float
    y: float
    width: float
    height: float


class Line(NamedTuple):
    """A line through points, as SVG's `d`; `area`: the same, closed along the bottom."""

    kind: str
    path: str
    area: str


class Mark(NamedTuple):
    """A label of an axis, and the height of its line."""

    y: float
    text: str


class Chart(NamedTuple):
    """What a template draws. `summary` tells the same in a sentence, for who cannot see it."""

    name: str
    title: str
    summary: str
    legend: list[tuple[str, str]]
    bars: list[Bar]
    lines: list[Line]
    marks: list[Mark]
    times: list[tuple[float, str, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT


class Series(NamedTuple):
    """The values of one line or one colour of bars; None where nobody knows."""

    kind: str
    label: str
    values: Sequence[float | None]


def stacked(name: str, title: str, summary: str, series: Sequence[Series], times: Sequence[str]) -> Chart:
    """Return a chart of bars that stand on each other."""
    count = len(times)
    sums = [sum(one.values[at] or 0 for one in series) for at in range(count)]
    top = nice(max(sums, default=0), is_whole=True)
    step = (WIDTH - LEFT - RIGHT) / max(count, 1)
    bars, floor = [], [0.0] * count
    for one in series:
        for at, value in enumerate(one.values):
            if value:
                high = _y(floor[at] + value, top)
                height = _y(floor[at], top) - high
                bars.append(Bar(one.kind, _r(LEFT + at * step), high, _r(max(step - 0.8, 0.6)), _r(height)))
                floor[at] += value
    return _chart(name, title, summary, series, bars, [], top, number, times)


def lines(
    name: str,
    title: str,
    summary: str,
    series: Sequence[Series],
    times: Sequence[str],
    write: Callable[[float], str],
) -> Chart:
    """Return a chart of lines. `write`: how to write a value at the axis."""
    is_whole = write is number
    top = nice(max((value for one in series for value in one.values if value), default=0), is_whole)
    step = (WIDTH - LEFT - RIGHT) / max(len(times), 1)
    drawn = [Line(one.kind, *_path(one.values, step, top)) for one in series]
    return _chart(name, title, summary, series, [], drawn, top, write, times)


def _path(values: Sequence[float | None], step: float, top: float) -> tuple[str, str]:
    path, area, begin = "", "", 0.0
    bottom = HEIGHT - BOTTOM
    x = before = 0.0
    is_open = False
    for at, value in enumerate(values):
        x = _r(LEFT + (at + 0.5) * step)
        if value is None:
            area += f"L{before} {bottom}L{begin} {bottom}Z" if is_open else ""
            is_open = False
            continue
        y = _y(value, top)
        if is_open:
            path += f"L{x} {y}"
            area += f"L{x} {y}"
        else:
            begin, is_open = x, True
            path += f"M{x} {y}h0.01"  # so that a single point is seen
            area += f"M{x} {y}"
        before = x
    return path, area + (f"L{before} {bottom}L{begin} {bottom}Z" if is_open else "")


def _chart(
    name: str,
    title: str,
    summary: str,
    series: Sequence[Series],
    bars: list[Bar],
    drawn: list[Line],
    top: float,
    write: Callable[[float], str],
    times: Sequence[str],
) -> Chart:
    marks = [Mark(_y(value, top), write(value)) for value in (0, top / 2, top)]
    legend = [(one.kind, one.label) for one in series]
    where = [(LEFT, "start", 0), ((LEFT + WIDTH - RIGHT) / 2, "middle", len(times) // 2)]
    labels = [(x, anchor, times[at]) for x, anchor, at in where if times]
    labels += [(WIDTH - RIGHT, "end", times[-1])] if times else []
    return Chart(name, title, summary, legend, bars, drawn, marks, labels)


def nice(value: float, is_whole: bool = False) -> float:
    """Return a round number that is not less: where an axis ends."""
    if value < LEAST or (is_whole and value <= 2):
        return 2.0 if is_whole else 1.0
    power = 10.0 ** math.floor(math.log10(value))
    found = next(factor * power for factor in (1, 2, 4, 5, 6, 8, 10) if value <= factor * power * (1 + 1e-9))
    return float(math.ceil(found / 2) * 2 if is_whole else found)


def number(value: float) -> str:
    """Write a whole number so that it fits beside an axis."""
    if value >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value:,.0f}"


def _y(value: float, top: float) -> float:
    return _r(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(value / top, 1.0))


def _r(value: float) -> float:
    return round(value, 2)
