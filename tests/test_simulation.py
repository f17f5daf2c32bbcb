"""The simulation keeps every promise, and finds what breaks one."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.simulation.events import Event
from tests.simulation.shrinking import shrink
from tests.site import ROOT


def simulate(migrated: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    template = f"--template={migrated / 'snappea.sqlite3'}"
    command = [sys.executable, "-m", "tests.simulation", template, "--minutes=3", "--as-found", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("options", [("--seed=1", "--lives=4"), ("--lives=4",)], ids=["same", "new"])
def test_no_promise_is_broken(migrated: Path, options: Sequence[str]) -> None:
    ended = simulate(migrated, *options)
    print(ended.stdout)  # with the seed
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(("fault", "seed"), [("fence", 100), ("groups", 2), ("cells", 1)])
def test_a_planted_fault_is_found(migrated: Path, fault: str, seed: int) -> None:
    ended = simulate(migrated, f"--plant={fault}", f"--seed={seed}", "--lives=25")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "BROKEN with --seed" in ended.stdout


def test_the_same_seed_makes_the_same_history(migrated: Path) -> None:
    first, second = (simulate(migrated, "--seed=3", "--lives=1", "--history") for _ in range(2))
    assert "foreman: starts" in first.stdout
    # all but the last line, which has the CPU time
    assert first.stdout.splitlines()[:-1] == second.stdout.splitlines()[:-1]


def test_a_history_is_shrunk_to_what_is_needed() -> None:
    events = [Event(float(at), "client", "enqueue", at) for at in range(60)]
    needed = {events[3], events[40]}

    def run(some: Sequence[Event]) -> str:
        return "two tasks run" if needed <= set(some) else "#1 plain is gone"

    assert shrink(events, run, "two tasks run") == sorted(needed, key=lambda event: event.at)
