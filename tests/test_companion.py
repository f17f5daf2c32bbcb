"""The Foreman that gunicorn or runserver brings along: it starts, restarts and ends with its server."""

import os
import re
import shutil
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.projects import Project, Running
from tests.servers import free_port
from tests.site import DEADLINE, wait_until

pytestmark = pytest.mark.long

SETTINGS = """
from pathlib import Path
BASE_DIR = Path(__file__).parent
SECRET_KEY = "x"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
INSTALLED_APPS = ["shop", "snappea"]
ROOT_URLCONF = "urls"
SQLITE = "django.db.backends.sqlite3"
DATABASES = {
    "default": {"ENGINE": SQLITE, "NAME": BASE_DIR / "db.sqlite3"},
    "snappea": {"ENGINE": SQLITE, "NAME": BASE_DIR / "snappea.sqlite3"},
}
DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]
"""
TASKS = """
import os, time
from pathlib import Path
from snappea import task

@task
def note(text):
    with open("noted", "a") as file:
        print(text, os.getpid(), file=file)
    while text == "slow" and not Path("go").exists():
        time.sleep(0.01)
    with open("noted", "a") as file:
        print("end of", text, os.getpid(), file=file)
"""
URLS = """
from django.http import HttpResponse
from django.urls import path
from shop.tasks import note

def enqueue(request, text):
    note.delay(text)
    return HttpResponse()

urlpatterns = [path("<str:text>", enqueue)]
"""
# only here is the name of the settings known to gunicorn, as in many projects
WSGI = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""
SPEAKING_AUTORELOADER = """
DEBUG = True
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"django.utils.autoreload": {"level": "DEBUG", "handlers": ["console"]}},
}
"""
MANAGE = """
import os, sys
from django.core.management import execute_from_command_line
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
execute_from_command_line(sys.argv)
"""


class Server:
    """A web server with a Foreman, in a project."""

    def __init__(self, project: Project, running: Running, port: int) -> None:
        self.project = project
        self.running = running
        self.port = port

    def enqueue(self, text: str) -> None:
        urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{text}", timeout=DEADLINE).close()

    def run(self, text: str) -> int:
        """Enqueue a task from the web, wait until it has ended, and return the pid of the Foreman."""
        self.enqueue(text)
        return noted(self.project, f"end of {text}")

    def end(self, number: int) -> None:
        self.running.popen.send_signal(number)
        self.running.popen.wait(DEADLINE)


def noted(project: Project, text: str) -> int:
    """Wait until a task has noted a text, and return its pid."""
    path = project.directory / "noted"
    found = wait_until(
        lambda: path.exists() and re.search(rf"^{text} (\d+)$", path.read_text(), re.MULTILINE),
        f"{text!r} was not noted: " + "\n".join(log.read_text() for log in project.directory.glob("*.log")),
    )
    return int(found[1])


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_for_end(pid: int) -> None:
    wait_until(lambda: not is_alive(pid), f"the end of {pid}")


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture
def project(tmp_path: Path, migrated: Path) -> Project:
    files = {"settings.py": SETTINGS, "urls.py": URLS, "wsgi.py": WSGI, "manage.py": MANAGE}
    files |= {"shop/__init__.py": "", "shop/tasks.py": TASKS}
    files["gunicorn.conf.py"] = "from snappea.gunicorn import on_exit, on_reload, when_ready\n"
    shutil.copy(migrated / "snappea.sqlite3", tmp_path)
    return Project(tmp_path, files)


@contextmanager
def served(project: Project, command: str, ready: str) -> Iterator[Server]:
    port = free_port()
    with project.running(command.format(port), ready) as running:
        yield Server(project, running, port)


@contextmanager
def gunicorn(project: Project) -> Iterator[Server]:
    project.wrapper = ["env", "-u", "DJANGO_SETTINGS_MODULE"]
    options = "--no-control-socket --bind 127.0.0.1:{}"
    with served(project, f"gunicorn {options} wsgi", "Listening at") as server:
        yield server


def test_a_foreman_that_dies_starts_again_and_a_stop_interrupts_nothing(project: Project) -> None:
    with gunicorn(project) as server:
        first = server.run("a")
        assert parent(parent(first)) == server.running.popen.pid
        os.kill(first, signal.SIGKILL)
        server.running.wait_for_output(
            f"The Foreman (pid {first}) has ended with exit code -9. It starts again"
        )
        server.enqueue("slow")
        second = noted(project, "slow")
        for pid in (second, parent(second), server.running.popen.pid):
            os.kill(pid, signal.SIGTERM)  # to all, as systemd sends it by default
        server.running.wait_for_output("Shutting down")
        server.running.wait_for_output("Stopping: a signal was received")
        project.write("go", "")
        assert server.running.popen.wait(DEADLINE) == 0
        assert noted(project, "end of slow") == second != first
        assert not is_alive(second), "gunicorn waits for it"
    assert "Interrupted" not in server.running.output()


def test_the_foreman_stops_if_a_parent_is_killed(project: Project) -> None:
    with gunicorn(project) as server:
        first = server.run("a")
        os.kill(parent(first), signal.SIGKILL)
        wait_for_end(first)
        server.running.popen.send_signal(signal.SIGHUP)
        second = server.run("b")
        server.running.popen.kill()
        wait_for_end(second)
        assert server.running.output().count("INFO Stopped.") == 2


def test_of_two_arbiters_one_has_the_foreman(project: Project) -> None:
    with gunicorn(project) as first, gunicorn(project) as second:
        both = first, second
        one = wait_until(
            lambda: next((each for each in both if "tasks ready" in each.running.output()), None)
        )
        other = first if one is second else second
        other.running.wait_for_output("This one takes over when it ends")
        before = other.run("a")
        one.end(signal.SIGTERM)
        other.running.wait_for_output("tasks ready")
        assert other.run("b") != before
        assert other.running.output().count("Another Foreman is at work") == 1


def test_a_reload_brings_new_code(project: Project) -> None:
    with gunicorn(project) as server:
        server.enqueue("slow")
        old = noted(project, "slow")
        project.write("shop/tasks.py", TASKS.replace("print(text, os", 'print("new", text, os'))
        server.running.popen.send_signal(signal.SIGHUP)
        server.running.wait_for_output("This one takes over when it ends")
        project.write("go", "")
        new = server.run("b")
        assert noted(project, "new b") == new != old == noted(project, "end of slow")
        wait_for_end(old)
    assert "Interrupted" not in server.running.output()


def test_runserver_brings_one_foreman_along(project: Project) -> None:
    project.variables["SNAPPEA_FOREMAN"] = "1"
    project.append("settings.py", SPEAKING_AUTORELOADER)
    with served(project, "python manage.py runserver 127.0.0.1:{}", "Watching for file changes") as server:
        server.running.wait_for_output("tasks ready")
        # what changes before an autoreloader has seen it, it never notices
        wait_until(lambda: server.running.output().count("shop/tasks.py first seen") == 2)
        wait_until(lambda: "Quit the server" in server.running.output())
        foreman = server.run("a")
        assert parent(parent(foreman)) == server.running.popen.pid
        project.write("shop/tasks.py", TASKS.replace("print(text, os", 'print("new", text, os'))
        server.running.wait_for_output("Stopping: to restart")
        wait_until(lambda: server.running.output().count("Quit the server") == 2)
        server.run("b")
        assert noted(project, "new b") == foreman
        server.end(signal.SIGTERM)
        assert not is_alive(foreman)
    assert server.running.output().count("INFO Snappea ") == 2
