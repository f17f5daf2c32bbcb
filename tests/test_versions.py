"""What the manual says of a deploy: the last release and this version work side by side on one queue."""

import json
import re
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

import snappea
from tests.projects import Project, Running
from tests.servers import NOT_TRIED
from tests.site import DEADLINE, ROOT, wait_until
from tests.test_companion import SETTINGS

pytestmark = pytest.mark.long

#: Tasks as both versions know them. Each notes the begin and the end of a run with one write.
TASKS = """
import os, time
from snappea import task, Retry

def note(what, text):
    descriptor = os.open("noted", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{what} {text} {os.getpid()}\\n".encode())
    os.close(descriptor)

def run(text):
    note("begin", text)
    time.sleep(0.002)
    note("end", text)
    return text

def flaky(text):
    run(text)
    with open("noted") as file:
        if file.read().count(f"end {text} ") == 1:
            raise OSError("once")

async def wait(text):
    return run(text)

KINDS = {
    "plain": task(run, name="plain"),
    "flaky": task(flaky, name="flaky", autoretry_for=(OSError,), default_retry_delay=0),
    "unique": task(run, name="unique", unique=True),
    "pair": task(run, name="pair", max_concurrency=2),
    "rated": task(run, name="rated", rate_limit="1000/s"),
    "kept": task(run, name="kept", result_ttl=600),
    "first": task(run, name="first", priority=5),
    "late": task(run, name="late", acks_late=True),
    "apart": task(run, name="apart", isolate=True),
    "async": task(wait, name="async"),
}
"""
#: A web process: it enqueues until there is a file "enough", a few tasks ahead of the Foreman.
WEB = """
import sys, time
from pathlib import Path
import django; django.setup()
from shop.tasks import KINDS
from snappea.errors import EnqueueError

name, sent, noted, enough = sys.argv[1], 0, Path("noted"), Path("enough")

def begun():
    return len({line.split()[1] for line in noted.read_text().splitlines() if f"begin {name}-" in line})

while not enough.exists():
    for kind, task in KINDS.items():
        text = f"{name}-{kind}-{sent}"
        try:
            task.delay(text)
        except EnqueueError as error:
            assert "out of date" in str(error) and "migrate --database" in str(error), error
            print("refused", text, flush=True)
        else:
            sent += 1
            print("sent", text, flush=True)
    while sent - begun() > 20 and not enough.exists():
        time.sleep(0.01)
"""


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the last release of another minor version; a clone may have no tags."""
    minor = snappea.__version__.split(".")[:2]
    for line in git("log", "--format=%H %s", "--extended-regexp", "--grep=^Version [0-9.]+$").splitlines():
        commit, _version, number = line.split(" ")
        if number.split(".")[:2] != minor:
            directory = tmp_path_factory.mktemp("release")
            command = f'git archive {commit} snappea | tar --extract --directory "{directory}"'
            subprocess.run(command, shell=True, cwd=ROOT, check=True)
            return directory
    pytest.skip(f"{NOT_TRIED}: no earlier release is in this clone's history (git fetch --unshallow)")


@pytest.fixture
def both(tmp_path: Path, release: Path) -> tuple[Project, Project]:
    """Return one project twice: with the last release, and with this version."""
    files = {"settings.py": SETTINGS, "urls.py": "urlpatterns = []", "web.py": WEB, "noted": ""}
    files |= {"shop/__init__.py": "", "shop/tasks.py": TASKS}
    old, new = Project(tmp_path, files), Project(tmp_path, {})
    old.variables["PYTHONPATH"] = f"{tmp_path}:{release}"
    assert snappea.__version__ not in old.shell('python -c "import snappea; print(snappea.__version__)"')
    return old, new


def ends(project: Project, name: str) -> int:
    return (project.directory / "noted").read_text().count(f"end {name}-")


def wait_for_progress(project: Project) -> None:
    """Wait until tasks of both web processes have ended, at least as many as are ahead."""
    before = {name: ends(project, name) for name in ("old", "new")}
    wait_until(lambda: all(ends(project, name) > count + 40 for name, count in before.items()), "progress")


@contextmanager
def foreman(project: Project, kills: bool = False) -> Iterator[Running]:
    with project.running("python -m django runsnappea", "tasks ready") as running:
        yield running
        if kills:
            running.popen.kill()
    assert kills or running.popen.returncode == 0, running.output()
    lines = running.output().splitlines()  # it may have to wait for the migration
    assert not [line for line in lines if "ERROR" in line and "database is locked" not in line]


def test_a_deploy_under_load(both: tuple[Project, Project]) -> None:
    """Both versions enqueue all the time, each runs the tasks in turn, and the tables change meanwhile."""
    old, new = both
    old.run("django", "migrate", "--database=snappea", "-v0")
    with ExitStack() as stack:
        webs = [
            stack.enter_context(project.running(f"python web.py {name}"))
            for name, project in (("old", old), ("new", new))
        ]
        with foreman(old, kills=True):
            wait_for_progress(old)
            exit_code, said = new.try_to_run("django", "runsnappea")
            assert exit_code == 1 and "is out of date" in said and "migrate --database=snappea" in said
            new.run("django", "migrate", "--database=snappea", "-v0")
            refused = webs[1].output().count("refused")
            wait_for_progress(old)
        with foreman(new, kills=True):
            wait_for_progress(old)
        with foreman(old):
            wait_for_progress(old)
        with foreman(new):
            wait_for_progress(old)
            new.write("enough", "")
            for web in webs:
                assert web.popen.wait(DEADLINE) == 0, web.output()
            wait_until(lambda: not waiting(new), "the end of all tasks")
    # a call may have begun before the migration, and have ended after it
    assert webs[1].output().count("refused") <= refused + 1 and "refused" not in webs[0].output()
    check(new, re.findall(r"^sent (\S+)$", webs[0].output() + webs[1].output(), re.MULTILINE))


def rows(project: Project, *statuses: str) -> list[str]:
    """Return the tasks with these states, as they are noted."""
    with closing(sqlite3.connect(project.directory / "snappea.sqlite3", timeout=DEADLINE)) as connection:
        found = connection.execute("SELECT status, args FROM snappea_task").fetchall()
    return [json.loads(args)[0] for status, args in found if status in statuses]


def waiting(project: Project) -> list[str]:
    return rows(project, "ready", "scheduled", "running")


def check(project: Project, sent: list[str]) -> None:
    """Each task ran as often as it may, and left the row that it should."""
    lines = (project.directory / "noted").read_text().splitlines()
    begun = Counter(line.split()[1] for line in lines if line.startswith("begin"))
    ended = Counter(line.split()[1] for line in lines if line.startswith("end"))
    assert len(sent) > 300 and {text.split("-")[1] for text in sent} == {text.split("-")[1] for text in begun}
    interrupted = set(rows(project, "interrupted"))
    assert rows(project, "failed", "cancelled") == [] and begun.keys() <= {*sent}
    for text in sent:
        kind, times = text.split("-")[1], 2 if "-flaky-" in text else 1
        if text in interrupted:
            assert kind != "late" and begun[text] <= times, text
        else:
            assert ended[text] == times or (kind == "late" and ended[text] >= 1), (text, begun[text])
            assert begun[text] == ended[text] or kind == "late", text
    kept = {text for text in sent if "-kept-" in text} - interrupted
    assert set(rows(project, "successful")) == kept
    assert most_at_once([line for line in lines if "-pair-" in line]) <= 2


def most_at_once(lines: list[str]) -> int:
    """Return how many runs overlapped, within one Foreman."""
    running: Counter[str] = Counter()
    most = 0
    for line in lines:
        what, _text, pid = line.split()
        running[pid] += 1 if what == "begin" else -1
        most = max(most, running[pid])
    return most
