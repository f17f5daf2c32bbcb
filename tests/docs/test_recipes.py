"""The recipes of the example project: each is run with a real Foreman, and the manual shows it as it is."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import BLOCKS
from tests.projects import Project, Running
from tests.site import ROOT

RECIPES = ROOT / "example_project" / "recipes"
#: What each recipe prints, as a regular expression for each line.
OUTPUT = {
    "asynchronous": [r"Enqueued by async code: True", r"50 calls of 0.5 s, sum 1225, all within 10 s: True"],
    "chunks": [r"10 tasks, 1000 mails"],
    "cleanup": [r"Deleted: 1"],
    "cron": [
        r"example_project\.recipes\.cron\.clear_sessions \(0 3 \* \* \*\) runs next at .*",
        r"example_project\.recipes\.cron\.poll \(every 600 s\) runs next at .*",
        r"Cleared the expired sessions\.",
    ],
    "failed": [r"failed: DoesNotExist", r"Hello, grace!"],
    "isolated": [
        r"Small: Converted 10,485,760 bytes\.",
        r"Too large: MemoryError",
        r"Too slow: .*killed after 1 s",
    ],
    "later": [r"In an hour: scheduled", r"Cancelled: None", r"After a second: Reminded user 43\."],
    "one_at_a_time": [r"3 runs, 0 overlaps"],
    "progress": [r"\d+ of 100: row \d+", r"Imported 100 rows\."],
    "rate_limit": [r"5 starts in 0\.[345] s"],
    "results": [r"1 / 2 = 0\.5", r"Anywhere else, by its id: 0\.5", r"1 / 0: ZeroDivisionError: .*"],
    "retry": [r"Fetched https://example\.com/\.", r"Attempts: 3", r"ConnectionError: .* is down"],
    "signals": [r"Mails about it: 1"],
    "tenants": [r"A report for acme\.", r"A report for globex\."],
    "testing": [r"Ran 1 test in .*", r"OK"],
    "time_limit": [r"All 5 pages\.", r"Stopped after some of 1000000 pages\."],
    "tracing": [r"Order 42 ships for request 5f3a\."],
    "transaction": [r"Rolled back, nothing enqueued: This looks like spam\."],
    "unique": [r"The second call is the first one: True", r"Other arguments are another call: True"],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("recipes"), {}, "example_project.recipes.settings")
    project.variables["EXAMPLE_DATA_DIR"] = str(project.directory)
    for alias in ("default", "snappea"):
        project.run("django", "migrate", f"--database={alias}", "--verbosity=0")
    return project


@pytest.fixture(scope="module")
def foreman(project: Project) -> Iterator[Running]:
    with project.running("python -m django runsnappea --no-reload", "tasks ready") as running:
        yield running
    assert running.popen.returncode == 0, running.output()


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(OUTPUT))
def test_recipe(project: Project, foreman: Running, name: str) -> None:
    output = project.run("example_project.recipes", name)
    missing = [line for line in OUTPUT[name] if not re.search(f"^{line}$", output, re.MULTILINE)]
    assert not missing, output
    if name == "transaction":
        foreman.wait_for_output("Welcome, ada-")
        assert "Welcome, spammer" not in foreman.output()


@pytest.mark.long
def test_the_command_lists_the_recipes_and_starts_a_foreman(tmp_path: Path) -> None:
    project = Project(tmp_path, {}, "example_project.recipes.settings")
    project.variables["EXAMPLE_DATA_DIR"] = str(tmp_path)
    listed = project.run("example_project.recipes")
    assert [line.split()[0] for line in listed.splitlines()] == sorted(OUTPUT)
    assert "10 tasks, 1000 mails" in project.run("example_project.recipes", "chunks")
    exit_code, output = project.try_to_run("example_project.recipes", "nonsense")
    assert exit_code == 1 and "There is no recipe nonsense." in output


@pytest.mark.parametrize("name", sorted(OUTPUT))
def test_a_recipe_is_short_and_says_how_to_try_it(name: str) -> None:
    text = (RECIPES / f"{name}.py").read_text()
    assert 15 < len(text.splitlines()) <= 46
    assert f"`python -m example_project.recipes {name}`" in text


def test_the_manual_shows_each_recipe_as_it_is() -> None:
    shown = [block for block in BLOCKS if block.is_ours]
    stale = [(block.page, block.title) for block in shown if (ROOT / block.title).read_text() != block.text]
    assert not stale, "copy the file into the page"
    assert {Path(block.title).stem for block in shown} >= OUTPUT.keys()
