"""`runsnappea --reload`: changed code runs soon, code with a syntax error never."""

import os
import re
import time
from pathlib import Path

import pytest

from snappea.models import Task
from tests.site import Process, Site, wait_until

pytestmark = pytest.mark.long

TASKS = """
from snappea import task
from tests.playground.ledger import note

@task
def greet(key):
    note(key, WORD)
"""


class Code:
    """A file of the site's own app, which changes while a Foreman runs."""

    def __init__(self, site: Site, name: str) -> None:
        self.file = site.directory / "growing" / name
        self.file.parent.mkdir(exist_ok=True)
        (self.file.parent / "__init__.py").touch()
        site.variables["PYTHONPATH"] = os.pathsep.join(
            [str(site.directory), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        site.variables["SNAPPEA_TEST_APPS"] = "growing"
        self._changed_at = time.time()

    def write(self, text: str) -> None:
        """Change it, visibly newer than before."""
        self.file.write_text(text)
        self._changed_at += 10
        os.utime(self.file, (self._changed_at, self._changed_at))

    def change(self, text: str, foreman: Process, pattern: str) -> None:
        """Change it until the Foreman logs it: it may not have looked for the first time yet."""
        wait_until(lambda: is_at_rest(foreman))

        def is_noticed() -> bool:
            self.write(text)
            end = time.monotonic() + 15
            while time.monotonic() < end:
                if re.search(pattern, foreman.output()):
                    return True
                time.sleep(0.01)
            return False

        wait_until(is_noticed, pattern)


def is_at_rest(foreman: Process) -> bool:
    """Return whether a process is idle, as after it has looked at its files."""
    stat = Path(f"/proc/{foreman.pid}/stat")
    before = stat.read_text().split()[13:15]
    time.sleep(0.1)
    return (
        "Watching" in foreman.output().rpartition("Stopped")[2] and stat.read_text().split()[13:15] == before
    )


def greet(site: Site, key: str) -> str:
    """Run the task for a key, and return its greeting."""
    Task.objects.create(task_name="growing.tasks.greet", args=[key])
    wait_until(lambda: [line for line in site.ledger.lines() if line[0] == key])
    return next(line[1] for line in site.ledger.lines() if line[0] == key)


def starts(foreman: Process) -> int:
    return foreman.output().count(f"pid {foreman.popen.pid}: ")


def test_changed_code_is_at_work_and_broken_code_is_not(site: Site) -> None:
    code = Code(site, "tasks.py")
    code.write(TASKS.replace("WORD", "'hello'"))
    foreman = site.foreman("--reload")
    assert greet(site, "a") == "hello"
    code.change(
        TASKS.replace("WORD", "'welcome'"), foreman, r"to restart, because .*growing/tasks\.py changed"
    )
    wait_until(lambda: starts(foreman) >= 2)
    assert greet(site, "b") == "welcome"
    code.change("def broken(:\n", foreman, r"keeps the old code: SyntaxError")
    assert greet(site, "c") == "welcome"
    code.change(TASKS.replace("WORD", "'goodbye'"), foreman, r"(?s)SyntaxError.*to restart")
    wait_until(lambda: starts(foreman) >= 3)
    assert greet(site, "d") == "goodbye"
    assert foreman.stop() == 0


def test_what_could_not_be_imported_is_watched(site: Site) -> None:
    """The error may be in a file that the Foreman never imported."""
    tasks, words = Code(site, "tasks.py"), Code(site, "words.py")
    tasks.write(TASKS.replace("WORD", "'hello'"))
    foreman = site.foreman("--reload")
    words.write("1 / 0\nword = 'imported'\n")
    tasks.change(
        TASKS.replace("WORD", "words.word") + "from growing import words\n", foreman, "ZeroDivisionError"
    )
    wait_until(lambda: starts(foreman) >= 2)
    words.change("word = 'imported'\n", foreman, r"to restart, because .*growing/words\.py changed")
    wait_until(lambda: starts(foreman) >= 3)
    assert greet(site, "b") == "imported"


CALL = """
from django.conf import settings
from django.core.management import call_command
settings.DEBUG = {debug}
call_command("runsnappea", *sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("debug", "flags", "watches"),
    [(True, [], True), (False, [], False), (True, ["--no-reload"], False), (False, ["--reload"], True)],
)
def test_the_default_is_debug(site: Site, debug: bool, flags: list[str], watches: bool) -> None:
    foreman = site.program(CALL.format(debug=debug), *flags)
    foreman.wait_for_output("tasks ready")
    if watches:
        foreman.wait_for_output("Watching the code for changes with ")
    threads = len(list(Path(f"/proc/{foreman.pid}/task").iterdir()))
    assert threads == 1 + watches
    assert foreman.stop() == 0
    assert ("Watching" in foreman.output()) == watches
