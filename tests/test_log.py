"""Safe logging: no error and no broken line."""

import json
import logging
import re
import time
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from snappea import log
from tests.playground.broken_logging import BrokenHandler
from tests.projects import Project


def test_a_handler_that_raises_is_borne() -> None:
    handler = BrokenHandler()
    log.foreman.addHandler(handler)
    try:
        log.say(logging.ERROR, "nobody hears %s", "this")
    finally:
        log.foreman.removeHandler(handler)


def test_what_repeats_is_said_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_said_until", {})
    for now in (1000.0, 1030.0, 1059.9, 1060.0, 1119.0, 1121.0):
        monkeypatch.setattr("snappea.log.time.monotonic", partial(float, now))
        log.say_seldom(logging.WARNING, "again: %s", "this")
    log.say_seldom(logging.WARNING, "again: %s", "something else")
    assert [record.getMessage() for record in caplog.records] == ["again: this"] * 3 + [
        "again: something else"
    ]
    assert len(log._said_until) <= 2


def test_say_once_never_repeats_a_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_said_until", {})
    for now in (1000.0, 2000.0, 1e9):
        monkeypatch.setattr("snappea.log.time.monotonic", partial(float, now))
        log.say_once(logging.WARNING, "only %s", "once")
    assert [(record.getMessage(), record.filename) for record in caplog.records] == [
        ("only once", "test_log.py")
    ]


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain é", "plain é"),
        ("a\nb", r"a\nb"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\u202eabc", r"\u202eabc"),
        ("\0", r"\x00"),
        ("Straße\n東京\x1b é\\", r"Straße\n東京\x1b é" + "\\"),
    ],
)
def test_control_characters_are_escaped(text: str, cleaned: str) -> None:
    assert log.clean(text) == cleaned


def test_a_record_names_the_module_and_line_that_logged_it(caplog: pytest.LogCaptureFixture) -> None:
    log.say(logging.ERROR, "one")
    log.say_seldom(logging.ERROR, f"two {time.time()}")
    log.say_failure("three", failure=None, text="", extra={})
    assert [(record.filename, record.funcName) for record in caplog.records] == [
        ("test_log.py", "test_a_record_names_the_module_and_line_that_logged_it")
    ] * 3


FORMAT = "%(levelname)s [%(task_name)s %(task_id)s] %(message)s"
LOGGING: dict[str, Any] = {
    "version": 1,
    "formatters": {"plain": {"format": FORMAT}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
SETTINGS = """
from pathlib import Path
BASE_DIR = Path(__file__).parent
SECRET_KEY = "only for tests"
INSTALLED_APPS = ["shop", "snappea"]
DATABASES = {"snappea": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "snappea.sqlite3"}}
DATABASES["default"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "default.sqlite3"}
DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]
USE_TZ = True
"""
TASKS = """
import logging
from snappea import task

@task
def speak() -> None:
    logging.getLogger("shop").warning("within", extra={"shop": 1})
    logging.getLogger("shop").warning("otherwise", extra={"task_id": "mine"})
"""


def test_runsnappea_is_never_mute(tmp_path: Path) -> None:
    def settings(**snappea: Any) -> str:
        return (
            f"{SETTINGS}LOGGING = { {**LOGGING, 'loggers': {'snappea': snappea}} if snappea else LOGGING }\n"
        )

    files = {"settings.py": settings(), "shop/__init__.py": "", "shop/tasks.py": TASKS}
    project = Project(tmp_path, files)
    project.run("django", "migrate", "--database=snappea", "-v0")
    project.run("django", "shell", "-c", "from shop.tasks import speak; speak.delay()")
    output = project.run("django", "runsnappea", "--burst", "-v2")
    assert re.search(r"INFO \[- -\] Snappea \d", output) and "DEBUG" in output, "-v sets the level"
    assert "WARNING [shop.tasks.speak 1] within\n" in output
    assert "WARNING [shop.tasks.speak mine] otherwise\n" in output, "what is there already stays"
    project.write("settings.py", settings(level="WARNING"))
    output = project.run("django", "runsnappea", "--burst", "-v2")
    assert re.match(r"Snappea \d[^\n]* LOGGING shows no INFO of the logger snappea\.\n$", output), output
    assert not project.run("django", "runsnappea", "--burst", "-v0")


OTHER_TASKS = """

@task(isolate=True)
def fail(order: int) -> None:
    speak()
    raise ValueError("no such order")

@task(retry_backoff=30, autoretry_for=(OSError,), queue="mail")
async def wait() -> None:
    raise OSError("later")
"""
CALLS = "from shop.tasks import speak, fail, wait; speak.delay(); fail.delay(7); wait.delay()"


def test_lines_as_json(tmp_path: Path) -> None:
    """Of the Foreman, of a process of a task, of the event loop, and of other loggers without a handler."""
    files = {"settings.py": SETTINGS, "shop/__init__.py": "", "shop/tasks.py": TASKS + OTHER_TASKS}
    project = Project(tmp_path, files)
    project.run("django", "migrate", "--database=snappea", "-v0")
    project.run("django", "shell", "-c", CALLS)
    output = project.run("django", "runsnappea", "--burst", "--log-format=json")
    lines = [json.loads(line) for line in output.splitlines()]
    assert lines[0]["message"].startswith("Snappea ") and lines[0].keys() == {
        *("time", "level", "logger", "message")
    }
    assert all(datetime.fromisoformat(line["time"]).utcoffset() == timedelta() for line in lines)
    by_message = {line["message"].split()[0]: line for line in lines if "task_id" in line}

    def told(word: str) -> tuple[Any, ...]:
        return tuple(map(by_message[word].get, ("task_id", "task_name", "queue", "attempt")))

    assert told("Finished") == (1, "shop.tasks.speak", "default", 1)
    assert told("Failed") == (2, "shop.tasks.fail", "default", 1)
    assert told("Retrying") == (3, "shop.tasks.wait", "mail", 1)
    durations = [
        isinstance(by_message[word]["duration"], float) for word in ("Finished", "Failed", "Retrying")
    ]
    assert all(durations) and "ValueError: no such order" in by_message["Failed"]["exception"]
    said = [
        (line["task_id"], line["task_name"], line["shop"]) for line in lines if line["message"] == "within"
    ]
    assert sorted(said) == [(1, "shop.tasks.speak", 1), (2, "shop.tasks.fail", 1)]
    assert [line["task_id"] for line in lines if line["message"] == "otherwise"] == ["mine", "mine"]


def test_the_formatter_in_logging(tmp_path: Path) -> None:
    """LOGGING may name it, though no model can be imported yet. What JSON does not have is shown."""
    formatters = {"plain": {"()": "snappea.log.JsonFormatter"}}
    logging_with_json = f"LOGGING = { {**LOGGING, 'formatters': formatters} }\n"
    project = Project(tmp_path, {"settings.py": SETTINGS.replace('"shop", ', "") + logging_with_json})
    code = "import logging; logging.getLogger('a').warning('%s\\n', 1, extra={'b': {2}, 'task_id': '-'})"
    line = json.loads(project.run("django", "shell", "-v0", "-c", code))
    assert (line["message"], line["logger"], line["level"]) == ("1\n", "a", "WARNING")
    assert line["b"] == "{2}" and not {"task_id", "task_name", "exception"} & line.keys()
