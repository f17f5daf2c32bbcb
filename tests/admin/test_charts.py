"""The charts: round ticks, visible failures, the same as a table, and a crosshair."""

import re
from typing import Any

import pytest
from django.template.loader import render_to_string
from django.utils import timezone, translation
from hypothesis import given
from hypothesis import strategies as st

from snappea.admin import charts
from snappea.admin.charts import COUNTS, HEIGHT, SHARES, TIMES, WIDTH, Chart, Clock, Scale, Series
from snappea.queue.clock import later
from snappea.stats import Histogram, Period
from tests.minutes import write_minute
from tests.site import Site

START = "2026-03-28 22:00:00"
#: No letter of a label is wider than this, in pixels.
LETTER = 6.5
SCALES = {"counts": (COUNTS, 1e12), "times": (TIMES, 1e8), "shares": (SHARES, 100.0)}


def clock(count: int, minutes: int = 1, starts: tuple[int, ...] = ()) -> Clock:
    return Clock(
        [
            Period(later(START, 60 * minutes * at), 0, 0, 0, int(at in starts), Histogram(), Histogram())
            for at in range(count)
        ],
        minutes,
    )


def chart(*series: Series, scale: Scale = COUNTS, has_bars: bool = True, **times: Any) -> Chart:
    return Chart("x", "X", "", series, clock(len(series[0].values), **times), scale, has_bars)


@pytest.mark.parametrize("name", SCALES)
@given(st.data())
def test_ticks_are_round_few_and_cover_the_values(name: str, data: st.DataObject) -> None:
    scale, highest = SCALES[name]
    most = data.draw(st.one_of(st.just(0.0), st.floats(1e-6, highest)))
    if scale is COUNTS:
        most = float(round(most))
    ticks = scale.ticks(most)
    step = ticks[1]
    assert ticks[0] == 0 and ticks[-1] >= most * (1 - 1e-6) and 3 <= len(ticks) <= 7
    assert ticks[-1] <= max(most * 2.5, 2 if scale is COUNTS else 1.01) or most < 1e-3, "no empty half"
    labels = [scale.tick(value, step) for value in ticks]
    assert len(set(labels)) == len(ticks)
    assert max(map(len, labels)) * LETTER <= charts.LEFT - 6 or most >= 1e9, "nothing is cut off"
    if scale is COUNTS:
        assert step == int(step)
    clock_steps = {factor * unit for unit in (1, 60, 3600) for factor in (1, 2, 5, 10, 15, 30)}
    if not (scale is TIMES and step in clock_steps):
        size = 86400 if scale is TIMES and step >= 86400 else 1
        assert re.fullmatch(r"[125]e[+-]\d+", f"{step / size:.0e}") and float(f"{step / size:.0e}") == (
            pytest.approx(step / size)
        )


@pytest.mark.parametrize(
    ("most", "labels"),
    [
        (0.37, ["0 ms", "100 ms", "200 ms", "300 ms", "400 ms"]),
        (4.2, ["0 s", "1 s", "2 s", "3 s", "4 s", "5 s"]),
        (130.0, ["0 s", "30 s", "60 s", "90 s", "120 s", "150 s"]),
        (4000.0, ["0 min", "15 min", "30 min", "45 min", "60 min", "75 min"]),
        (86400.0, ["0 h", "5 h", "10 h", "15 h", "20 h", "25 h"]),
        (9 * 86400.0, ["0 d", "2 d", "4 d", "6 d", "8 d", "10 d"]),
        (1.4, ["0 ms", "500 ms", "1 s", "1.5 s"]),
        (0.0004, ["0 ms", "0.1 ms", "0.2 ms", "0.3 ms", "0.4 ms"]),
    ],
)
def test_times_have_one_unit_on_a_scale(most: float, labels: list[str]) -> None:
    ticks = TIMES.ticks(most)
    assert [TIMES.tick(value, ticks[1]) for value in ticks] == labels


@pytest.mark.parametrize(("hours", "minutes"), [(1, 1), (6, 6), (24, 24)])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "Europe/Berlin"])
def test_the_time_axis_has_round_times_of_the_current_zone(
    site: Site, hours: int, minutes: int, zone: str
) -> None:
    """Europe/Berlin: in the night in which the clock is put forward."""
    with timezone.override(zone):
        ticks = list(clock(60, minutes).ticks())
    assert 3 <= len(ticks) <= 7 and all(0 <= place <= 100 for place, _label in ticks)
    past = [int(label[:2]) * 60 + int(label[3:]) for _place, label in ticks]
    assert all(minute % {1: 10, 6: 60, 24: 60}[hours] == 0 for minute in past), ticks


values = st.lists(st.one_of(st.none(), st.floats(1e-9, 1e9)), min_size=1, max_size=60)


@given(values)
def test_nothing_of_a_chart_is_outside_of_it(drawn: list[Any]) -> None:
    stacked = chart(Series("failed", "failed", drawn), Series("done", "done", drawn), scale=SHARES)
    lines = chart(Series("p50", "median", drawn), scale=TIMES, has_bars=False)
    for _kind, path in stacked.bars:
        for x, y, height, width in re.findall(r"M(\S+) (\S+)v-(\S+)h(\S+)v", path):
            assert float(x) >= 0 and float(x) + float(width) <= WIDTH
            assert float(y) <= HEIGHT and float(y) - float(height) >= 0 and float(height) >= charts.LEAST_BAR
    for _kind, path in lines.lines:
        points = re.findall(r"[ML](\S+?) ([\d.]+)", path)
        assert len(points) == sum(value is not None for value in drawn)
        assert all(0 <= float(x) <= WIDTH and 0 <= float(y) <= HEIGHT for x, y in points)


@given(st.integers(1, 200_000), st.integers(1, 200_000))
def test_every_failure_is_visible(failed: int, done: int) -> None:
    (kind, path), _done = chart(Series("failed", "failed", [failed]), Series("done", "done", [done])).bars
    (height,) = re.findall(r"v-([\d.]+)", path)
    assert kind == "failed" and float(height) >= charts.LEAST_BAR


def test_few_failures_of_many_have_a_chart_of_their_own(site: Site) -> None:
    for back in range(30):
        write_minute(30 - back, {"x": {"done": 4500, "failed": 15 if back % 2 else 16}})
    text = render_to_string("snappea/chart.html", {"chart": history()[1]})
    assert "465 of 135,465 runs failed: 0.343 %." in text and "0.4 %</text>" in text
    assert "0.354 % (16 / 4,516)" in text


def history() -> list[Chart]:
    return charts.history_charts(charts.periods_of(1), 1)


def test_a_gap_in_what_is_known_is_a_gap_in_the_line() -> None:
    drawn = chart(Series("p50", "median", [1.0, None, 2.0]), has_bars=False)
    assert drawn.lines[0][1].count("M") == 2


def test_a_start_is_marked_and_named(site: Site) -> None:
    write_minute(10, {"x": {"done": 1}}, starts=2)
    write_minute(20, {"x": {"done": 1}})
    shown = history()[0]
    assert len(shown.starts) == 1 and shown.legend[-1] == ("start", "Foreman started")
    text = render_to_string("snappea/chart.html", {"chart": shown})
    assert text.count('class="sp-start"') == 1 and "<title>Foreman started</title>" in text
    assert [row[-1] for row in shown.rows if row[-1]] == ["2"]


def test_a_chart_is_a_table_as_well(site: Site) -> None:
    """With the same numbers, also for the script."""
    numbers = {"done": 7, "failed": 2, "retried": 1, "wait_times": {2: 10}, "run_times": {-4: 9, 4: 1}}
    write_minute(5, {"x": numbers})
    ended, failures, wait, run = history()
    for shown, cells in (
        (ended, ("2", "1", "7")),
        (failures, ("20 % (2 / 10)",)),
        (wait, ("1.4 s", "1.2 s")),
        (run, ("2.4 s", "154 ms")),
    ):
        text = render_to_string("snappea/chart.html", {"chart": shown})
        (row,) = [row for row in shown.rows if row[-1] not in ("0", "—")]
        assert row[1:] == cells and text.count("<tr>") == len(shown.rows) + 1 <= 61
        assert all(f'<td class="sp-num">{cell}</td>' in text for cell in cells)
        assert "\t".join(row) in text and len(shown.readings.splitlines()) == 60


def test_nothing_is_drawn_of_nothing(site: Site) -> None:
    for shown in history():
        text = render_to_string("snappea/chart.html", {"chart": shown})
        assert "nan" not in text and not any(path for _kind, path in [*shown.bars, *shown.lines])


def test_numbers_are_written_as_the_language_does(site: Site) -> None:
    write_minute(5, {"x": {"done": 9990, "failed": 10, "run_times": {-20: 5}}})
    with translation.override("de"):
        shown = {shown.name: shown for shown in history()}
    assert shown["failures"].ticks[1][1] == "0,02 %"
    assert [row[1] for row in shown["failures"].rows if row[1] != "—"] == ["0,1 % (10 / 10.000)"]
    assert "M" in shown["run"].lines[0][1] and shown["run"].ticks[1][1] == "0,2 ms"
