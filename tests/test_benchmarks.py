"""The benchmarks: what they make of figures. No environment is installed here, and no time asserted."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.benchmarks import floors, readme
from tests.benchmarks.__main__ import parse, plan
from tests.benchmarks.charts import CHARTS, Bar, Chart, draw, svg
from tests.benchmarks.compare import beside, comparison, revision
from tests.benchmarks.environments import NotInstalled, python_of
from tests.benchmarks.figures import FIGURES, Results
from tests.benchmarks.measurements import QUICK, Bench, crowded, drain, rate
from tests.benchmarks.processes import family, memory, seconds
from tests.benchmarks.systems import BULK, LIMITS, SYSTEMS
from tests.benchmarks.systems.base import EVERYTHING, ROOT, System
from tests.benchmarks.systems.django_project import multiply_row
from tests.benchmarks.table import report, scales
from tests.benchmarks.targets import missed
from tests.benchmarks.templates import Templates
from tests.benchmarks.trial import finish, start

README = readme.PAGE.read_text()
SHOWN = Results.load(readme.DIRECTORY / "figures.json")


@pytest.fixture
def results() -> Results:
    results = Results(["A machine."])
    for value in (30_000.0, 20_000.0, 25_000.0):
        results.add("snappea", {"enqueue": value, "drain": 2 * value})
    results.add("sqlite", {"enqueue": 50_000.0})
    results.add("huey", {"enqueue": 10_000.4, "pick-up p50": 18.123})
    return results


# the README


def test_the_readme_shows_what_was_measured_and_nothing_else() -> None:
    assert readme.figures(README) == "\n" + "\n".join(report(SHOWN)) + "\n\n"
    assert readme.renewed(README, report(SHOWN)) == README


def test_the_page_on_scaling_shows_the_same_run() -> None:
    page = readme.SCALING.read_text()
    assert readme.renewed(page, scales(SHOWN)) == page


def test_the_readme_shows_each_chart_of_what_was_measured(tmp_path: Path) -> None:
    draw(SHOWN, tmp_path)
    for chart in CHARTS:
        assert (tmp_path / chart.file).read_text() == (readme.DIRECTORY / chart.file).read_text()
        assert f"](../images/{chart.file})" in README


def test_the_readme_names_everybody() -> None:
    for system in SYSTEMS.values():
        assert any(SHOWN.of(system.name, figure) for figure in FIGURES) or system.title in README, system.name


def test_other_figures_take_the_place_of_those_in_the_readme(results: Results) -> None:
    text = f"before\n{readme.BEGIN}\n| old |\n\n{readme.END}after\n"
    renewed = readme.renewed(text, report(results))
    assert renewed.startswith("before\n") and renewed.endswith("after\n")
    assert "old" not in renewed and "25,000" in renewed
    with pytest.raises(AssertionError):
        readme.renewed("no marks", report(results))


# the table


def test_a_cell_has_the_median_and_the_extremes_and_gaps_are_seen(results: Results) -> None:
    (row,) = (line for line in report(results) if line.startswith("| **Snappea** | SQLite"))
    assert row.endswith("| 25,000 (20,000 to 30,000) | 50,000 (40,000 to 60,000) |")
    assert "| Huey | SQLite | 8 threads | 10,000 | - |" in report(results)


def test_the_distance_to_sqlite_is_told_where_both_were_measured(results: Results) -> None:
    lines = list(report(results))
    assert "| share of sqlite3 alone | enqueue |" in lines and "| **Snappea** | 50% |" in lines


def test_what_failed_is_told(results: Results) -> None:
    results.failures.append("drain, celery: hung")
    assert list(report(results))[-1] == "Failed: drain, celery: hung"


def test_the_limits_have_a_table_of_their_own() -> None:
    results = Results()
    results.add("snappea", {"writers 2": 20_000.0, "backlog 1 size": 153.2})
    assert parse(["--limits"]).systems == ["snappea", "snappea-full", "snappea-pg"]
    lines = list(report(results))
    assert "| 2 processes, calls/s | 20,000 |" in lines
    assert "| 1,000,000 rows ready, the file, MB | 153 |" in lines


def test_many_processes_are_columns_unless_the_limits_were_measured() -> None:
    results = Results()
    results.add("huey", {"writers 8": 9000.0, "writers 8 p50": 0.1, "writers 8 slowest": 1234.0})
    assert "| Huey | SQLite | 8 threads | 9,000 | 1,234 |" in report(results)
    results.add("huey", {"writers 1": 10_000.0})
    assert list(report(results))[-1] == "| 8 processes, a call, the slowest, ms | 1,234 |"


def test_results_survive_the_file(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path / "new" / "figures.json")
    assert Results.load(tmp_path / "new" / "figures.json") == results


def test_a_target_is_missed_only_if_it_was_measured() -> None:
    results = Results()
    assert not list(missed(results))
    results.add("snappea", {"drain": 1000.0, "naps": 2.55})
    assert list(missed(results)) == ["Missed: drain, Snappea: at least 15,000"]


# revisions


def test_an_earlier_revision_runs_its_own_code_in_the_same_processes(tmp_path: Path) -> None:
    name = revision("HEAD")
    before, here = beside([SYSTEMS["snappea"]], [name], tmp_path)
    code = "import sys, snappea, tests; print(snappea.__file__, tests.__path__)"
    package, tests = (ROOT / "snappea" / "__init__.py", ROOT / "tests")
    for system, file in (
        (before, tmp_path / f"revision-{name}" / "snappea" / "__init__.py"),
        (here, package),
    ):
        process = start(system, tmp_path, ["-c", code], subprocess.PIPE)
        assert finish(process, tmp_path).split() == [str(file), f"['{tests}']"]


def test_revisions_stand_side_by_side() -> None:
    results = Results()
    for name, value in (("snappea@1234567", 20_000.0), ("snappea", 30_000.0)):
        results.add(name, {"enqueue": value, "naps": 0.0})
    lines = list(comparison(results))
    assert "| Snappea | 1234567 | here | change |" in lines
    assert "| enqueue, calls/s | 20,000 | 30,000 | +50% |" in lines
    assert lines[-1].endswith("| 0.00 | 0.00 | - |")


def test_only_ours_is_compared_with_a_revision_that_exists(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["--compare", "HEAD"]).systems == ["snappea", "snappea-full"]
    with pytest.raises(SystemExit):
        parse(["--compare", "no-such-revision"])
    assert "no-such-revision" in capsys.readouterr().err


# the floors


def test_a_floor_is_a_share_of_what_sqlite_did_in_the_same_round() -> None:
    results = Results()
    for floor in floors.FLOORS:
        for limit in (1000.0, 10_000.0, 2000.0):
            ours = limit if floor.figure != "drain" else limit / 10
            results.add(floor.system, {floor.figure: ours})
            results.add(floor.limit, {floor.figure: limit})
    assert [floor.figure for floor in floors.missed(results)] == ["drain"]
    assert list(floors.report(results))[2:] == [
        "10,000 at once, Snappea: 100% of sqlite3 alone, at least 30%",
        "drain, Snappea: 10% of sqlite3 alone, at least 15%: too slow",
    ]


# the charts

NAMESPACE = "{http://www.w3.org/2000/svg}"


def widths(chart: Chart, *medians: float) -> list[float]:
    """Return how long the bars are in a chart of these."""
    bars = [Bar(f"queue {median:g}", "other", median, median, median) for median in medians]
    drawn = ElementTree.fromstring(svg(chart, bars))
    return [float(bar.attrib["width"]) for bar in drawn.iter(f"{NAMESPACE}rect")]


def test_bars_are_as_long_as_their_numbers() -> None:
    first, second, third = widths(Chart("", "", "", ""), 1000.0, 500.0, 100.0)
    assert [first / second, first / third] == pytest.approx([2, 10])


def test_on_a_logarithmic_chart_equal_factors_are_equally_long() -> None:
    first, second, third = widths(Chart("", "", "", "", is_less_better=True), 1.0, 10.0, 100.0)
    assert 0 < first < second < third
    assert third - second == pytest.approx(second - first, abs=0.2)


def test_a_chart_of_nothing_but_zero_can_be_drawn() -> None:
    assert widths(Chart("", "", "", ""), 0.0) == [1.0]
    assert widths(Chart("", "", "", "", is_less_better=True), 0.0) == [1.0]


def test_a_chart_tells_whose_bar_it_is_its_number_and_its_spread() -> None:
    bars = [Bar("<Ours>", "ours", 1234.5, 1000.0, 2000.0), Bar("Raw", "limit", 2000.0, 2000.0, 2000.0)]
    drawn = ElementTree.fromstring(svg(Chart("", "", "A & B", ""), bars))
    texts = [text.text for text in drawn.iter(f"{NAMESPACE}text")]
    assert texts == ["A & B", None, "<Ours>", "1,234", "Raw", "2,000"]
    assert [bar.attrib["class"] for bar in drawn.iter(f"{NAMESPACE}rect")] == ["bar ours", "limit"]
    assert len(list(drawn.iter(f"{NAMESPACE}line"))) == 1


def test_only_what_was_measured_is_drawn_the_best_on_top(results: Results, tmp_path: Path) -> None:
    draw(results, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"enqueue.svg", "drain.svg", "pickup.svg"}
    enqueued = (tmp_path / "enqueue.svg").read_text()
    assert enqueued.index("sqlite3 alone") < enqueued.index("Snappea (SQLite)") < enqueued.index("Huey")


# the options


def test_by_default_everything_but_the_limits_is_measured_of_everybody() -> None:
    options = parse([])
    measured = {name for _, name, _ in plan(options.only, options.rounds, list(SYSTEMS.values()))}
    assert measured == EVERYTHING | BULK
    assert {system.family for system in SYSTEMS.values()} == set(options.systems)
    assert (options.rounds, options.out) == (3, None)


def test_the_limits_are_measured_alone() -> None:
    assert set(parse(["--limits"]).only) == LIMITS


def test_what_goes_into_the_readme_is_kept_beside_it() -> None:
    assert parse(["--readme"]).out == readme.DIRECTORY


@pytest.mark.parametrize("option", [["--systems", "huey,sidekiq"], ["--only", "drain,speed"]])
def test_names_that_nobody_has_are_refused(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(option)
    assert option[1].partition(",")[2] in capsys.readouterr().err


def test_in_each_round_one_comes_after_the_other_and_idling_is_measured_once() -> None:
    systems = [SYSTEMS["snappea"], SYSTEMS["huey"]]
    planned = [(number, name, system.name) for number, name, system in plan(["drain", "idle"], 2, systems)]
    assert planned == [
        *((0, name, system) for name in ("drain", "idle") for system in ("snappea", "huey")),
        *((1, "drain", system) for system in ("huey", "snappea")),
    ]


# the systems


def test_the_versions_of_everybody_are_pinned() -> None:
    for system in SYSTEMS.values():
        assert system.requirements
        assert all("==" in requirement for requirement in system.requirements), system.name


def test_the_systems_can_be_told_where_nothing_is_installed() -> None:
    """Each environment has one queue, and all of the files here."""
    code = """if True:
        import sys
        class Nothing:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] not in {*sys.stdlib_module_names, "tests"}:
                    raise ImportError(f"{name} is not everywhere")
        sys.meta_path.insert(0, Nothing())
        import tests.benchmarks.systems
    """
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_where_no_python_will_do_it_is_said(tmp_path: Path) -> None:
    system = System("future", "From the future")
    system.oldest_python = (3, 19)
    with pytest.raises(NotInstalled, match=r"no Python 3\.19"):
        python_of(system, tmp_path)


@pytest.mark.parametrize("key", ["INTEGER", "char(32)"])
def test_a_row_is_multiplied_whatever_its_key(key: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "file")) as connection, connection:
        connection.execute(f'CREATE TABLE task (id {key} NOT NULL PRIMARY KEY, "order" text)')
        connection.execute("INSERT INTO task VALUES (7, 'far')")
    multiply_row(tmp_path / "file", "task", 100)
    with closing(sqlite3.connect(tmp_path / "file")) as connection:
        counted = connection.execute('SELECT count(DISTINCT id), count(DISTINCT "order") FROM task')
        assert counted.fetchone() == (100, 1)


# the clock


def test_the_first_tenth_does_not_count() -> None:
    assert rate([(0.0, 1), (10.0, 10), (11.0, 60), (12.0, 100)]) == 45.0
    assert rate([]) == 0.0
    assert rate([(5.0, 3)]) == 0.0


def test_processes_are_counted_with_those_that_they_started() -> None:
    busy = "import time\nwhile time.process_time() < 0.05: pass\n"  # /proc counts in hundredths of a second
    sleeper = f"{busy}print('up', flush=True); time.sleep(600)"
    code = f"{busy}import subprocess, sys; subprocess.run([sys.executable, '-c', {sleeper!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline()
        pids = family(process.pid)
        assert len(pids) == 2 and all(memory(pid) > 1000 and seconds(pid) > 0 for pid in pids)
        subprocess.run(["kill", *map(str, pids)], check=True)
    assert family(process.pid) == [process.pid] and memory(process.pid) == 0 == seconds(process.pid)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield Bench(QUICK, Templates(tmp_path, tasks=5000, seconds=60, behind=1000))


@pytest.mark.parametrize("name", ["snappea", "sqlite"])
def test_a_drain_is_measured_of_real_processes(name: str, bench: Bench) -> None:
    assert drain(bench, SYSTEMS[name])["drain"] > 0
    assert crowded(bench, SYSTEMS[name])["crowded"] > 0
    template, tasks = bench.templates.full(SYSTEMS[name], is_crowded=True)
    with closing(sqlite3.connect(template / "snappea.sqlite3")) as connection:
        found = connection.execute("SELECT status, count(*) FROM snappea_task GROUP BY status").fetchall()
    assert (tasks, dict(found)) == (5000, {"ready": 5000, "scheduled": 1000})
