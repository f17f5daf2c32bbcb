"""`crash_everywhere()`: it finds each planted harm at its line, and none where there is none."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core import mail
from django.db import connections, transaction

from snappea import current_task
from snappea.testing import crash_everywhere, crashes
from tests.playground import crashing
from tests.playground.crashing import mail_twice, pay, retry_once, write_raw, write_twice
from tests.site import Made, Site

LINES = Path(crashing.__file__).read_text().splitlines()


def harmful(name: str) -> str:
    """Return the marked line, as a report names it."""
    (number,) = (number for number, line in enumerate(LINES, 1) if line.endswith(f"# harm: {name}"))
    return f"{crashing.__file__}:{number}\n"


@pytest.mark.parametrize("name", ["pay_twice", "raise_twice", "mail_twice", "call_twice", "step_twice"])
def test_the_line_is_named(site: Site, name: str) -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("PRAGMA journal_mode = WAL")  # a killed process leaves its log
    args = [7] if name == "pay_twice" else []
    with pytest.raises(AssertionError) as raised:
        crash_everywhere(getattr(crashing, name), *args)
    report = str(raised.value)
    assert report.startswith(f"tests.playground.crashing.{name} was killed after {harmful(name)}")
    assert ("UNIQUE constraint failed" if name == "raise_twice" else "\n+ ") in report
    assert not Group.objects.exists() and not mail.outbox


def test_no_harm(site: Site) -> None:
    assert crash_everywhere(pay, 7) > 8
    assert crash_everywhere(retry_once) > 3
    assert crash_everywhere(mail_twice, check=Group.objects.all) > 3


def test_files_are_put_back_and_compared(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "log").write_text("before\n")
    with pytest.raises(AssertionError) as raised:
        crash_everywhere(write_twice, f"{folder}/log", files=[folder], check=int)
    assert f"was killed after {harmful('write_twice')}" in str(raised.value)
    assert f"+ {folder}/log: ['before', 'line', 'line']" in str(raised.value)
    assert (folder / "log").read_text() == "before\n" and [*folder.iterdir()] == [folder / "log"]


@pytest.mark.on_postgres
def test_postgres(site: Site) -> None:
    with connections["snappea"].cursor() as cursor:
        cursor.execute("CREATE TABLE note (number int)")
    with pytest.raises(AssertionError) as raised:
        crash_everywhere(write_raw)
    assert f"was killed after {harmful('write_raw')}" in str(raised.value)
    assert "+ new rows: {'snappea: note': 2}" in str(raised.value)
    with connections["snappea"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM note")
        assert cursor.fetchone() == (0,)
    with transaction.atomic(using="snappea"), pytest.raises(RuntimeError, match="is in a transaction"):
        crash_everywhere(write_raw)


def test_attempts(site: Site, made: Made, tmp_path: Path) -> None:
    @made
    def note() -> None:
        with (tmp_path / "attempts").open("a") as file:
            print(current_task.attempt, file=file)
        current_task.progress(1)

    points = crash_everywhere(note, check=int)
    assert (tmp_path / "attempts").read_text().split().count("2") == points


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (lambda: 1 / 0, "fails even without a crash:\nTraceback"),
        (lambda: os.kill(os.getpid(), 9), "fails even without a crash:\nIt has ended its process."),
        (lambda: time.sleep(60), "fails even without a crash:\nIt takes 0.5 s."),
        (lambda: Group.objects.create(name=f"{time.time()}"), "leaves something else each time. Let `check`"),
    ],
)
def test_tasks_that_cannot_be_tried(
    site: Site, made: Made, monkeypatch: pytest.MonkeyPatch, body: Any, what: str
) -> None:
    monkeypatch.setattr(crashes, "TIMEOUT", 0.5 if "0.5" in what else crashes.TIMEOUT)

    @made
    def run() -> None:
        body()

    with pytest.raises(AssertionError) as raised:
        crash_everywhere(run, check=lambda: Group.objects.values("name"))
    assert str(raised.value).startswith(f"tests.made {what}")


def test_only_in_tests(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crashes, "tests_run", lambda: False)
    with pytest.raises(RuntimeError, match="works in tests only"):
        crash_everywhere(pay, 7)
