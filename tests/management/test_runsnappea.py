"""`manage.py runsnappea`: when it refuses to start, with one clear line and exit code 1."""

import logging
import signal
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections

from snappea.management.commands.runsnappea import _chosen_queues, _log_to_stderr
from tests.playground.tasks import enqueue_more, nap, record, wait_for
from tests.site import Process, Site, wait_until

pytestmark = pytest.mark.usefixtures("executed")


def assert_refuses(process: Process, words: str) -> None:
    assert process.wait() == 1
    lines = process.output().strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("CommandError: ") and words in lines[0], process.output()


def test_a_database_that_does_not_exist(site: Site) -> None:
    connections.close_all()
    site.database.unlink()
    cure = "does not exist. Run: python manage.py migrate --database=snappea"
    assert_refuses(site.manage("runsnappea"), cure)
    assert not site.database.exists()


def test_a_database_that_is_not_migrated(site: Site) -> None:
    call_command("migrate", "snappea", "zero", using="snappea", verbosity=0)
    assert_refuses(
        site.manage("runsnappea"), "is not migrated. Run: python manage.py migrate --database=snappea"
    )


def test_a_directory_that_does_not_exist(site: Site) -> None:
    site.variables["SNAPPEA_TEST_DATABASE"] = str(site.directory / "no" / "such" / "queue.sqlite3")
    assert_refuses(site.manage("runsnappea"), "does not exist")


def test_a_file_that_is_no_database(site: Site) -> None:
    connections.close_all()
    site.database.write_text("this is a letter to my aunt, and no database" * 100)
    assert_refuses(site.manage("runsnappea"), "is not a SQLite database")


def test_eager_tasks(site: Site) -> None:
    process = site.manage("runsnappea", TASK_ALWAYS_EAGER=True)
    assert_refuses(process, 'SNAPPEA["TASK_ALWAYS_EAGER"] is True: tasks run immediately')


def test_wrong_settings(site: Site) -> None:
    process = site.manage("runsnappea", NUM_WORKERS=0)
    assert process.wait() == 1
    assert "snappea.E001" in process.output() and "Traceback" not in process.output()


def test_a_database_on_a_network_file_system(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snappea.foreman.sqlite_host.file_system", lambda _path: "nfs4")
    with pytest.raises(CommandError, match=r"is on a network file system \(nfs4\)"):
        call_command("runsnappea")


@pytest.mark.parametrize(("verbosity", "level"), [(0, "WARNING"), (1, "INFO"), (2, "DEBUG"), (3, "DEBUG")])
def test_the_verbosity_is_the_level_of_the_log(
    verbosity: int, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("snappea")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr("snappea.foreman.reports.prints_start", False)
    monkeypatch.setattr(logger, "level", logger.level)
    _log_to_stderr(verbosity)
    assert logging.getLevelName(logger.level) == level and len(logger.handlers) == 1
    _log_to_stderr(verbosity)
    assert len(logger.handlers) == 1


def test_logging_that_the_project_configured_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("snappea")
    theirs: Any = logging.NullHandler()
    monkeypatch.setattr(logging.getLogger(), "handlers", [theirs])
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr("snappea.foreman.reports.prints_start", False)
    monkeypatch.setattr(logger, "level", logging.ERROR)
    _log_to_stderr(1)
    assert logger.handlers == [] and logger.level == logging.ERROR


# flags


def test_flags_override_settings(site: Site) -> None:
    foreman = site.foreman("--workers", "3", "--max-tasks", "2", NUM_WORKERS=1, MAX_TASKS=None)
    foreman.wait_for_output(", 3 workers,")
    for number in range(3):
        record.delay(number)
    site.wait_until_empty()
    foreman.wait_for_output(r"to restart, because it has started 2 tasks \(MAX_TASKS\)(?s:.*), 3 workers,")
    assert foreman.stop() == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--workers", "0"], "argument --workers: '0' must be a whole number of at least 1"),
        (["--max-tasks", "-3"], "argument --max-tasks: "),
        (["--workers", "many"], "argument --workers: 'many' must be"),
    ],
)
def test_flags_that_make_no_sense(site: Site, flags: list[str], words: str) -> None:
    process = site.manage("runsnappea", *flags)
    assert process.wait() == 2
    assert words in process.output()


@pytest.mark.parametrize(
    ("declared", "included", "excluded", "chosen"),
    [
        (None, "", "", []),
        (None, "b, a", "", ["b", "a"]),
        (None, "b,a", "a", ["b"]),
        ({"mail": {}, "x": {}}, "", "mail, default", ["x"]),
        ({"mail": {}}, "", "nope", "'nope' is neither in SNAPPEA"),
        (None, "", "mail", "'mail' is neither in SNAPPEA"),
        (None, "mail", "mail", "leaves no queue"),
    ],
)
def test_queues_are_chosen(settings: Any, declared: Any, included: str, excluded: str, chosen: Any) -> None:
    settings.SNAPPEA = {"QUEUES": declared}
    if isinstance(chosen, list):
        assert _chosen_queues(included, excluded) == chosen
    else:
        with pytest.raises(CommandError, match=chosen):
            _chosen_queues(included, excluded)


def test_burst_empties_the_queue_and_exits(site: Site) -> None:
    for number in range(50):
        record.delay(number)
    nap.delay("nap", 0.3)
    record.apply_async(("later",), countdown=3600)
    foreman = site.foreman("--burst")
    assert foreman.wait() == 0
    assert "Stopping: the queue is empty." in foreman.output()
    assert site.ledger.count("end", "nap") == 1 and len(site.ledger.keys("end")) == 51
    assert site.counts() == {"scheduled": 1}, "what is not due yet is not waited for"
    assert site.foreman("--burst").wait() == 0, "nothing to do"


def test_burst_runs_what_its_tasks_enqueue(site: Site) -> None:
    enqueue_more.delay("more", 5)
    assert site.foreman("--burst").wait() == 0
    assert site.counts() == {} and len(site.ledger.keys("end")) >= 5


def test_a_signal_ends_a_burst(site: Site) -> None:
    wait_for.delay("first", str(site.directory / "go"))
    for number in range(20):
        record.delay(number)
    foreman = site.foreman("--burst", NUM_WORKERS=1)
    wait_until(lambda: site.ledger.count("start", "first"))
    foreman.send(signal.SIGTERM)
    foreman.wait_for_output("Stopping: a signal was received")
    (site.directory / "go").touch()
    assert foreman.wait() == 0
    assert site.counts() == {"ready": 20}
