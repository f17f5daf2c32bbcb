"""Charts of what was measured: a bar for each system, as SVG for light and dark pages."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from .figures import Results
from .systems import SYSTEMS

WIDTH, LEFT, RIGHT, TOP, LINE, BAR = 760, 250, 110, 58, 24, 16
STYLE = """
    text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328 }
    .title { font-size: 16px; font-weight: 600 }
    .note { font-size: 12px; fill: #656d76 }
    .ours { font-weight: 600 }
    .bar { fill: #afb8c1 } .limit { fill: none; stroke: #8c959f; stroke-dasharray: 3 2 }
    .bar.ours { fill: #2da44e } .spread { stroke: #1f2328; stroke-width: 1 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 } .note { fill: #8d96a0 } .bar { fill: #57606a } .limit { stroke: #8d96a0 }
      .bar.ours { fill: #3fb950 } .spread { stroke: #e6edf3 }
    }"""


class Chart(NamedTuple):
    """A figure to be drawn."""

    file: str
    figure: str
    title: str
    note: str
    is_less_better: bool = False
    digits: int = 0


CHARTS = (
    Chart("enqueue.svg", "enqueue", "Enqueue", "calls per second by one process; more is better"),
    Chart("drain.svg", "drain", "Run what waits", "no-op tasks per second, 8 workers; more is better"),
    Chart("stream.svg", "stream", "Enqueue and run at once", "no-op tasks per second; more is better"),
    Chart(
        "pickup.svg",
        "pick-up p50",
        "Pick up a task",
        "milliseconds from the call to the start of the task, p50, logarithmic; less is better",
        is_less_better=True,
        digits=1,
    ),
)


class Bar(NamedTuple):
    """What is drawn of one system, in the figure's unit."""

    label: str
    kind: str
    median: float
    least: float
    most: float


def draw(results: Results, directory: Path) -> None:
    """Write each chart for which there are figures."""
    directory.mkdir(parents=True, exist_ok=True)
    for chart in CHARTS:
        if bars := _bars(results, chart):
            (directory / chart.file).write_text(svg(chart, bars))


def _bars(results: Results, chart: Chart) -> list[Bar]:
    kinds = {"snappea": "ours", "sqlite": "limit"}
    bars = [
        Bar(
            f"{system.title} ({system.store})" if system.family != "sqlite" else system.title,
            kinds.get(system.family, "other"),
            results.median(name, chart.figure),
            min(rounds),
            max(rounds),
        )
        for name, system in SYSTEMS.items()
        if system.is_drawn and (rounds := results.of(name, chart.figure))
    ]
    return sorted(bars, key=lambda bar: bar.median, reverse=not chart.is_less_better)


def svg(chart: Chart, bars: Sequence[Bar]) -> str:
    """Return a chart, the best on top."""
    height = TOP + LINE * len(bars) + 8
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"  <title>{escape(chart.title)}: {escape(chart.note)}</title>",
        f"  <style>{STYLE}\n  </style>",
        f'  <text class="title" x="8" y="22">{escape(chart.title)}</text>',
        f'  <text class="note" x="8" y="42">{escape(chart.note)}</text>',
    ]
    scale = _Scale(bars, is_logarithmic=chart.is_less_better)
    for number, bar in enumerate(bars):
        lines += (f"  {line}" for line in _drawn(bar, TOP + LINE * number, scale, chart.digits))
    return "\n".join([*lines, "</svg>", ""])


class _Scale:
    """Converts a number to a length in pixels."""

    def __init__(self, bars: Sequence[Bar], is_logarithmic: bool) -> None:
        self._most = max(bar.most for bar in bars) or 1.0
        positive = [bar.least for bar in bars if bar.least > 0]
        self._least = min(positive, default=1.0) / 2 if is_logarithmic else 0.0

    def __call__(self, value: float) -> float:
        room = WIDTH - LEFT - RIGHT
        if self._least:
            value, most = max(value, self._least), self._most
            return room * math.log(value / self._least) / math.log(most / self._least)
        return room * value / self._most


def _drawn(bar: Bar, y: int, scale: _Scale, digits: int) -> Iterator[str]:
    """Yield the label, the bar, its spread and its number."""
    middle, baseline = y + BAR / 2, y + BAR - 3
    kind = "bar ours" if bar.kind == "ours" else "limit" if bar.kind == "limit" else "bar"
    text = ' class="ours"' if bar.kind == "ours" else ""
    yield f'<text{text} x="{LEFT - 8}" y="{baseline}" text-anchor="end">{escape(bar.label)}</text>'
    yield f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{max(scale(bar.median), 1):.1f}" height="{BAR}"/>'
    least, most = LEFT + scale(bar.least), LEFT + scale(bar.most)
    if most - least > 2:
        yield f'<line class="spread" x1="{least:.1f}" x2="{most:.1f}" y1="{middle:g}" y2="{middle:g}"/>'
    x = max(most, LEFT + scale(bar.median)) + 6
    yield f'<text{text} x="{x:.1f}" y="{baseline}">{bar.median:,.{digits}f}</text>'
