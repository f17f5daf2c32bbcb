"""Windows, simulated on Linux: no fork, no file locks, no inotify. What needs no Foreman works."""

from pathlib import Path

import pytest

from tests.projects import Project

pytestmark = pytest.mark.long

WINDOWS = """
import os, select, signal, sys, time
for name in ("fcntl", "resource", "pwd", "grp", "termios", "inotify_simple"):
    sys.modules[name] = None
for name in ("register_at_fork", "fork", "geteuid", "fchmod", "fchown", "O_NOFOLLOW", "O_CLOEXEC", "setsid"):
    delattr(os, name)
for name in ("SIGUSR1", "SIGALRM", "SIGKILL", "pthread_sigmask", "setitimer"):
    delattr(signal, name)
del select.poll, time.clock_gettime
"""
SETTINGS = """
from pathlib import Path
BASE_DIR = Path(__file__).parent
SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "shop", "snappea"]
SQLITE = "django.db.backends.sqlite3"
DATABASES = {
    "default": {"ENGINE": SQLITE, "NAME": BASE_DIR / "db.sqlite3"},
    "snappea": {"ENGINE": SQLITE, "NAME": BASE_DIR / "snappea.sqlite3"},
}
DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]
"""
TESTS = """
from django.test import SimpleTestCase
from shop.tasks import add
from snappea.testing import drain, override_snappea


class Tests(SimpleTestCase):
    def test_collected(self):
        result = add.delay(1, 2)
        self.assertEqual(drain(), 1)
        self.assertEqual(result.get(), 3)

    @override_snappea(TASK_ALWAYS_EAGER=True)
    def test_eager(self):
        self.assertEqual(add.delay(1, 2).get(), 3)
"""


def test_what_needs_no_foreman_works(tmp_path: Path) -> None:
    project = Project(
        tmp_path,
        {
            "sitecustomize.py": WINDOWS,
            "settings.py": SETTINGS,
            "shop/__init__.py": "",
            "shop/tests.py": TESTS,
            "shop/tasks.py": "from snappea import task\n@task(result_ttl=60)\ndef add(a, b): return a + b\n",
        },
    )
    assert "1 issue (0 silenced)" in project.run("django", "check"), "it is not migrated yet"
    project.run("django", "migrate", "--database=snappea", "-v0")
    assert "Ran 2 tests" in project.run("django", "test")
    project.run("django", "shell", "-c", "from shop.tasks import add; add.delay(1, 2)")
    assert "shop.tasks.add" in project.run("django", "snappea", "status")
    exit_code, output = project.try_to_run("django", "runsnappea")
    assert exit_code == 1 and "Traceback" not in output
    assert "CommandError: The Foreman needs Unix" in output and "run it under WSL" in output
