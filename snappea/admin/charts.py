"""Charts as plain geometry. A template draws them as SVG without scripts or styles.

The plot is stretched to the width of the page; the labels beside and below it are not.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import NamedTuple

from django.http import HttpRequest
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..monitoring.formatting import NOTHING, UNITS, duration, number
from ..queue.clock import as_datetime, as_local
from ..stats import Histogram, Period, history

#: The time spans of the charts in hours, and the minutes of a period.
SPANS = {1: 1, 6: 6, 24: 24}
#: The size of the plot, in the units of its view box. Its height is in pixels as well.
WIDTH, HEIGHT = 1000, 140
#: The room for the labels of the values, in pixels.
LEFT = 60
#: The room above the highest value, and the height of the smallest bar: each failure is visible.
TOP, LEAST_BAR = 8, 2.5
#: How many parts a scale has at most. It has two at least.
PARTS = 5
#: The steps of a scale of times from a second on, and of the time of day in minutes.
_SECONDS = [factor * unit for unit in (1, 60, 3600) for factor in (1, 2, 5, 10, 15, 30)]
_MINUTES = (1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720, 1440)
_SIZES = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"))


class Scale(NamedTuple):
    """A kind of values. `step`: returns the first round step that is not less. `write`: formats a value.

    `tick`: formats a tick, given the step as well.
    """

    step: Callable[[float], float]
    tick: Callable[[float, float], str]
    write: Callable[[float], str]

    def ticks(self, most: float) -> list[float]:
        """Return round numbers from 0 on, the last of which is not less than `most`."""
        step = self.step((most or 1.0) / PARTS)
        return [step * part for part in range(max(2, math.ceil(most / step - 1e-9)) + 1)]


def decimal_step(least: float) -> float:
    """Return the first of 1, 2, 5, 10, ... (or 0.1, 0.2, ...) that is not less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def time_step(least: float) -> float:
    """Return the first round time that is not less, in seconds: by 1-2-5, from a second on as clocks do."""
    if least <= 0.5:
        return decimal_step(max(least, 1e-6))
    days = decimal_step(least / 86400) * 86400
    return float(next((step for step in _SECONDS if step >= least), max(days, 86400 * 2)))


def _time_tick(value: float, step: float) -> str:
    size, unit = next(
        (pair for pair in _SIZES if max(step, min(value, 1.0)) >= pair[0] * (1 - 1e-9)), _SIZES[-1]
    )
    return UNITS[unit] % {"amount": _short(value / size)}


def _count_tick(value: float, _step: float) -> str:
    return _("%(amount)s M") % {"amount": _short(value / 1e6)} if value >= 1e6 else number(value)


def _percent(value: float, _step: float = 0.0) -> str:
    return _("%(amount)s %%") % {"amount": _short(value)}


def _short(value: float) -> str:
    return number_format(Decimal(f"{value:.3g}"))


COUNTS = Scale(lambda least: max(1.0, decimal_step(least)), _count_tick, number)
TIMES = Scale(time_step, _time_tick, duration)
SHARES = Scale(lambda least: decimal_step(max(least, 1e-4)), _percent, _percent)


class Series(NamedTuple):
    """The values of a line, or of the bars of one color; None where unknown. `kind`: its class in the CSS.

    `texts`: the values as they are read, if they tell more than the values.
    """

    kind: str
    label: str
    values: Sequence[float | None]
    texts: Sequence[str] = ()


class Clock:
    """The time axis: periods of so many minutes."""

    def __init__(self, periods: Sequence[Period], minutes: int) -> None:
        self.starts = [period.starts for period in periods]
        self._begins = [as_datetime(period.minute) for period in periods]
        self._minutes = minutes

    def labels(self) -> list[str]:
        """Return the time at which each period begins."""
        return [f"{as_local(begin):%H:%M}" for begin in self._begins]

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Yield round times of the day: the place in percent of the width, and the label."""
        total = len(self._begins) * self._minutes
        if not total:
            return
        step = next((step for step in _MINUTES if total / step <= PARTS + 1), total)
        first = as_local(self._begins[0])
        for minute in range(-(first.hour * 60 + first.minute) % step, total, step):
            moment = as_local(self._begins[0] + timedelta(minutes=minute))
            yield _r(minute / total * 100), f"{moment:%H:%M}"


class Chart:
    """What the template draws. `summary`: the same in a sentence."""

    width, height, left = WIDTH, HEIGHT, LEFT

    def __init__(
        self,
        name: str,
        title: str,
        summary: str,
        series: Sequence[Series],
        clock: Clock,
        scale: Scale,
        has_bars: bool = False,
    ) -> None:
        self.name, self.title, self.summary = name, title, summary
        shown = [*series, *_starts(clock)]
        self.legend = [(one.kind, one.label) for one in shown]
        self._step = WIDTH / max(len(clock.starts), 1)
        columns: Iterable[tuple[float, ...]] = zip(
            *([value or 0 for value in one.values] for one in series), strict=True
        )
        most = max(map(sum if has_bars else max, columns), default=0)
        ticks = scale.ticks(most)
        self._most = ticks[-1]
        self.ticks = [(self._y(value), scale.tick(value, ticks[1])) for value in ticks]
        self.times = list(clock.ticks())
        self.bars = self._stack(series) if has_bars else []
        self.lines = [] if has_bars else [(one.kind, self._line(one)) for one in series]
        self.starts = [_r((at + 0.5) * self._step) for at, count in enumerate(clock.starts) if count]
        texts = [one.texts or [_text(value, scale) for value in one.values] for one in shown]
        self.rows = list(zip(clock.labels(), *texts, strict=True))

    @property
    def readings(self) -> str:
        """The rows of the table for the script: a line for each, with tabs."""
        return "\n".join("\t".join(row) for row in self.rows)

    def _stack(self, series: Sequence[Series]) -> list[tuple[str, str]]:
        """Return the bars of each series as one path, the first at the bottom."""
        bars, floor = [], [float(HEIGHT)] * len(series[0].values)
        for one in series:
            path, width = "", _r(self._step * 0.88)
            for at, value in enumerate(one.values):
                if value:
                    height = max(HEIGHT - self._y(value), LEAST_BAR)
                    path += (
                        f"M{_r((at + 0.06) * self._step)} {_r(floor[at])}v-{_r(height)}h{width}v{_r(height)}z"
                    )
                    floor[at] -= height
            bars.append((one.kind, path))
        return bars

    def _line(self, series: Series) -> str:
        """Return a line with a gap where values are unknown."""
        path, pen = "", "M"
        for at, value in enumerate(series.values):
            if value is None:
                pen = "M"
                continue
            dot = "h0.01" if pen == "M" else ""  # so that a single point is visible
            path += f"{pen}{_r((at + 0.5) * self._step)} {self._y(value)}{dot}"
            pen = "L"
        return path

    def _y(self, value: float) -> float:
        return _r(HEIGHT - (HEIGHT - TOP) * min(value / self._most, 1.0))


def _text(value: float | None, scale: Scale) -> str:
    return NOTHING if value is None else scale.write(value)


def _starts(clock: Clock) -> list[Series]:
    if not any(clock.starts):
        return []
    return [Series("start", _("Foreman started"), [], [str(count or "") for count in clock.starts])]


def _r(value: float) -> float:
    return round(value, 2)


def hours_of(request: HttpRequest) -> int:
    """Return the time span that a page's address asks for."""
    asked = request.POST.get("hours") or request.GET.get("hours") or ""
    return int(asked) if asked.isdecimal() and int(asked) in SPANS else min(SPANS)


def periods_of(hours: int, task_name: str = "") -> list[Period]:
    """Return the periods of a chart, of all tasks or of one."""
    return history(hours * 60 // SPANS[hours], SPANS[hours], task_name)


def history_charts(periods: Sequence[Period], hours: int) -> list[Chart]:
    """Return the charts of the last hours, in periods from `periods_of()`."""
    minutes = SPANS[hours]
    clock = Clock(periods, minutes)
    done, failed, runs = (sum(getattr(one, what) for one in periods) for what in ("done", "failed", "runs"))
    counted = {"hours": hours, "done": number(done), "failed": number(failed), "runs": number(runs)}
    ended = [
        Series("failed", _("failed"), [period.failed for period in periods]),
        Series("others", _("retried or cancelled"), [period.others for period in periods]),
        Series("done", _("done"), [period.done for period in periods]),
    ]
    summary = ngettext(
        "In the last hour %(done)s were done and %(failed)s failed.",
        "In the last %(hours)s hours %(done)s were done and %(failed)s failed.",
        hours,
    )
    title = ngettext("Tasks ended per minute", "Tasks ended per %(minutes)s minutes", minutes) % {
        "minutes": minutes
    }
    shares = [100 * period.failed / period.runs if period.runs else None for period in periods]
    texts = [
        NOTHING if share is None else f"{_percent(share)} ({number(period.failed)} / {number(period.runs)})"
        for share, period in zip(shares, periods, strict=True)
    ]
    rate = [Series("failed", _("failed"), shares, texts)]
    counted["share"] = _percent(100 * failed / runs if runs else 0)
    rated = _("%(failed)s of %(runs)s runs failed: %(share)s.") % counted
    waits = _("Half of them waited less than %(p50)s, 95 %% less than %(p95)s.")
    took = _("Half of them took less than %(p50)s, 95 %% less than %(p95)s.")
    return [
        Chart("ended", title, summary % counted, ended, clock, COUNTS, has_bars=True),
        Chart("failures", _("Failure rate"), rated, rate, clock, SHARES, has_bars=True),
        _times_chart("wait", _("Wait in the queue"), waits, [one.wait_times for one in periods], clock),
        _times_chart("run", _("Run time"), took, [one.run_times for one in periods], clock),
    ]


def _times_chart(name: str, title: str, summary: str, histograms: Sequence[Histogram], clock: Clock) -> Chart:
    whole = Histogram()
    for histogram in histograms:
        whole += histogram
    shares = {"p95": (_("95th percentile"), 0.95), "p50": (_("median"), 0.5)}
    series = [
        Series(kind, label, [histogram.percentile(share) for histogram in histograms])
        for kind, (label, share) in shares.items()
    ]
    told = {kind: duration(whole.percentile(share)) for kind, (_label, share) in shares.items()}
    return Chart(name, title, summary % told if whole else _("Nothing was measured."), series, clock, TIMES)
