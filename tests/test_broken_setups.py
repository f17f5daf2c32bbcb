"""Each command and page, in each setup in which the queue cannot be used, gives a message with the cure.

For each setup, one process tries all of them. Any other exception is a fault.
"""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.projects import Project
from tests.site import DEADLINE, ROOT

SETTINGS = """
from pathlib import Path

BASE_DIR = Path(__file__).parent
SECRET_KEY = "only for tests"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.messages",
    "django.contrib.sessions", "shop", "snappea",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]},
}]
SQLITE = "django.db.backends.sqlite3"
QUEUE = BASE_DIR / "queue" / "snappea.sqlite3"
DATABASES = {
    "default": {"ENGINE": SQLITE, "NAME": BASE_DIR / "default.sqlite3"},
    "snappea": {"ENGINE": SQLITE, "NAME": QUEUE, "OPTIONS": {"timeout": 0.2}},
}
DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]
SNAPPEA = {"MONITORING_IS_PUBLIC": True}
ROOT_URLCONF = "shop.urls"
STATIC_URL = "/static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""
FILES = {
    "settings.py": SETTINGS,
    "shop/__init__.py": "",
    "shop/tasks.py": "from snappea import task\n\n@task\ndef nothing() -> None: ...\n",
    "shop/replica.py": """
class Replica:
    def db_for_read(self, model, **hints):
        return "default"
""",
    "shop/urls.py": """
from django.contrib import admin
from django.urls import path
from snappea.health import health
from snappea.metrics import metrics

urlpatterns = [path("health/", health), path("metrics/", metrics), path("admin/", admin.site.urls)]
""",
}
#: Tries everything, and prints each output as JSON.
TRY_ALL = """
import grp, io, json, os, pwd, subprocess, sys, traceback
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import Client
from shop.tasks import nothing
from snappea.management.commands import runsnappea
from snappea.errors import QueueUnavailable

said = {}


def attempt(name, act):
    try:
        said[name] = ["ok", act()]
    except (CommandError, QueueUnavailable) as error:
        said[name] = [type(error).__name__, str(error)]
    except BaseException:
        said[name] = ["FAULT", traceback.format_exc()]


def command(*arguments):
    def act():
        output = io.StringIO()
        try:
            checked = {} if arguments == ("check",) else {"skip_checks": False}
            call_command(*arguments, **checked, stdout=output, stderr=output)
        except CommandError as error:
            raise CommandError(output.getvalue() + str(error))
        return output.getvalue()

    return act


def try_all(commands, pages):
    for arguments in commands:
        attempt(" ".join(arguments), command(*arguments))
    attempt("delay", lambda: nothing.delay().id)
    for page in pages:
        response = client.get(page)
        said[page] = [response.status_code, response.content.decode()]


client = Client(raise_request_exception=False)
client.force_login(User.objects.get())
commands, pages, break_it, user = json.loads(sys.argv[1])
if user:  # this user may not even read modules that are imported late, so everything is tried before
    try_all([words for words in commands if words[0] != "runsnappea"], pages)
    assert client.get("/admin/snappea/dashboard/").status_code == 200
connections.close_all()
subprocess.run(break_it, shell=True, check=True, executable="/bin/bash")
if user:
    os.setgroups([])
    os.setegid(user)
    os.seteuid(user)
try_all(commands, pages)
print("\\n" + json.dumps(said))
"""
COMMANDS = [
    ["snappea", "status"],
    ["snappea", "status", "--json"],
    ["snappea", "list", "failed"],
    ["snappea", "list", "running"],
    ["snappea", "show", "1"],
    ["snappea", "schedules"],
    ["snappea", "schedules", "--pause", "x"],
    ["snappea", "enqueue", "shop.tasks.nothing"],
    ["snappea", "requeue", "--all"],
    ["snappea", "cancel", "--all"],
    ["snappea", "delete", "--all"],
    ["snappea", "purge"],
    ["snappea", "pause", "mail"],
    ["snappea", "resume", "mail"],
    ["snappea", "check", "--timeout", "0.1"],
    ["runsnappea", "--burst"],
    ["check"],
]
PAGES = [
    *("/health/", "/metrics/"),
    *("/admin/snappea/dashboard/", "/admin/snappea/task/?q=state:failed", "/admin/snappea/schedule/"),
    *("/admin/snappea/task/", "/admin/snappea/task/1/change/", "/admin/snappea/task/?q=state:running x"),
]
#: These always write.
CHANGES = [["snappea", *words] for words in (["enqueue", "shop.tasks.nothing"], ["pause", "x"])]
NOBODY = 65534
LATEST = max(path.stem for path in (ROOT / "snappea" / "migrations").glob("0*.py"))
#: Runs statements on the queue's database.
SQL = "python -c 'import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); "
SQL += "[db.execute(sql) for sql in sys.argv[2:]]' queue/snappea.sqlite3"


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a project with migrated databases, a user and a task."""
    project = Project(tmp_path_factory.mktemp("good"), FILES)
    (project.directory / "queue").mkdir()
    output = project.run("django", "migrate")
    assert "Snappea's tables are not in this database." in output
    assert "does not exist. Run: python manage.py migrate --database=snappea\n" in output
    project.run("django", "migrate", "--database=snappea", "-v0")
    make = "from django.contrib.auth.models import User; User.objects.create_superuser('x')\n"
    project.run("django", "shell", "-c", f"{make}from shop.tasks import nothing; nothing.delay()")
    return project.directory


@pytest.fixture
def project(migrated: Path, tmp_path: Path) -> Iterator[Project]:
    directory = tmp_path / "project"
    shutil.copytree(migrated, directory, ignore=shutil.ignore_patterns("__pycache__"))
    yield Project(directory, {})
    subprocess.run(["chmod", "-R", "u+rwX", str(directory)], check=True)  # or it cannot be removed


@pytest.fixture
def open_project(migrated: Path) -> Iterator[Project]:
    """Return a project in a place that other users can read."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        shutil.copytree(migrated, f"{directory}/project", ignore=shutil.ignore_patterns("__pycache__"))
        yield Project(Path(directory) / "project", {})


Said = dict[str, tuple[object, str]]


def try_all(
    project: Project,
    break_it: str = "true",
    user: int = 0,
    commands: object = COMMANDS,
    pages: object = PAGES,
) -> Said:
    """Return the output of each command, delay() and each page, in one process.

    `break_it`: shell commands that run before. `user`: the user that tries them.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRY_ALL, json.dumps([commands, pages, break_it, user])],
        env=project.environment(),
        cwd=project.directory,
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said: Said = json.loads(done.stdout.strip().rpartition("\n")[2])
    return said


def assert_said(said: Said, words: str) -> None:
    """Assert that all of them gave this message."""
    for what, (how, text) in said.items():
        if what == "delay":
            assert how == "EnqueueError" and "Nothing was written" in text, (what, how, text)
        else:
            if what == "check" and "isn't an available database backend" in text:
                continue  # raised by Django's own checks of fields, from 6.1 on
            fine = ("CommandError", "SystemCheckError", 503, *(["ok"] if what == "check" else []))
            assert how in fine, (what, how, text)
        plain = text.replace("&#x27;", "'").replace("&quot;", '"').replace(r"\"", '"')
        assert re.search(f"(?si){words}", plain), (what, how, text)
        assert "Traceback" not in text, (what, text)


#: How a setup is broken, in the shell, and the message.
BREAKS = {
    "missing": (
        "rm queue/*",
        r"snappea.sqlite3 (does not exist|is not migrated).*migrate --database=snappea",
    ),
    "empty": (
        "rm queue/* && touch queue/snappea.sqlite3",
        r"queue/snappea.sqlite3 is not migrated.*migrate --database=snappea",
    ),
    "no directory": (
        "rm -r queue",
        r"the directory \S+/queue of the queue's database does not exist.*mkdir -p",
    ),
    "a directory": (
        "rm queue/* && mkdir queue/snappea.sqlite3",
        r"queue/snappea.sqlite3 is a directory.*name a file in DATABASES\[.snappea.\]\[.NAME.\]",
    ),
    "a file for a directory": (
        "rm -r queue && touch queue",
        r"queue, the place for the queue's database, is not a directory.*NAME",
    ),
    "a pipe": ("rm queue/* && mkfifo queue/snappea.sqlite3", r"snappea.sqlite3 is not a regular file.*NAME"),
    "not a database": (
        "rm queue/* && (yes This is no database | head -c 8192) > queue/snappea.sqlite3",
        r"queue/snappea.sqlite3 is not a SQLite database.*move it away",
    ),
    "damaged": (
        "(yes What is wrong | head -c 30000) | dd of=queue/snappea.sqlite3 bs=1 seek=2000 conv=notrunc",
        r"queue/snappea.sqlite3 is (damaged|not a SQLite database)",
    ),
    "no table": (
        f"{SQL} 'DROP TABLE snappea_task'",
        r"queue/snappea.sqlite3 is damaged: it has no table snappea_task.*restore a backup",
    ),
    "no tables": (
        f"{SQL} \"DELETE FROM django_migrations WHERE app = 'snappea'\" "
        "'PRAGMA writable_schema=1' \"DELETE FROM sqlite_master WHERE tbl_name LIKE 'snappea%'\"",
        r"queue/snappea.sqlite3 is not migrated.*migrate --database=snappea",
    ),
    "older": (
        f"{SQL} \"DELETE FROM django_migrations WHERE name = '{LATEST}'\"",
        rf"queue/snappea.sqlite3 is out of date: the migration {LATEST} is not applied.*migrate --database",
    ),
}
#: What is wrong in the settings, and the message.
WRONG = {
    "a wrong alias": ('SNAPPEA["DATABASE"] = "quue"', r'there is no database .quue..*DATABASES\["quue"\] = '),
    "no alias": ('del DATABASES["snappea"]', r'there is no database .snappea..*DATABASES\["snappea"\] = '),
    "no router": (
        "DATABASE_ROUTERS = []",
        r"Django, without a router, reads snappea_\w+ in the database .default..*snappea.router.Snap",
    ),
    "another router": (
        'DATABASE_ROUTERS.insert(0, "shop.replica.Replica")',
        r"shop.replica.Replica reads snappea_\w+ in the database .default..*SnappeaRouter.*Replica",
    ),
    "no such engine": ('DATABASES["snappea"]["ENGINE"] = "nonsense"', r"nonsense"),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_database_is_named_with_the_cure(project: Project, how: str) -> None:
    break_it, words = BREAKS[how]
    said = try_all(project, break_it)
    if how == "older":
        assert said.pop("delay")[0] == "ok", "for what it writes nothing has changed"
    assert_said(said, words)
    if how in ("not a database", "a directory", "no directory", "damaged"):
        exit_code, output = project.try_to_run("django", "migrate", "--database=snappea")
        assert exit_code == 1 and re.search(f"(?si){words}", output), output
        assert "Traceback" not in output, output


@pytest.mark.parametrize("how", WRONG)
def test_wrong_settings_are_named_with_the_cure(project: Project, how: str) -> None:
    line, words = WRONG[how]
    project.append("settings.py", f"{line}\n")
    said = try_all(project)
    if "router" in how:
        assert said.pop("delay")[0] == "ok", "its statements go past the router"
    assert_said(said, words)


AS_NOBODY = "chmod 777 . && chmod 666 default.sqlite3 && chmod 644 queue/* &&"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (
            "chmod 640 queue/snappea.sqlite3",
            r"nobody may not read and write \S+/snappea.sqlite3, which belongs to root:root with m\w+ 0640"
            r".*run this as user root, or run: chown nobody \S+/snappea.sqlite3",
        ),
        (
            "rm queue/*-*; chmod 666 queue/snappea.sqlite3",
            r"nobody may not create SQLite's \S+ and \S+ files in \S+/queue, which belongs to root:root "
            r"with m\w+ 0755.*run this as user root, or run: chown nobody \S+/queue",
        ),
        (
            "chmod 700 queue",
            r"nobody may not look into \S+/queue, which belongs to root:root with m\w+ 0700",
        ),
        (
            "rm queue/*",
            r"nobody may not create snappea.sqlite3 in \S+/queue, which belongs to root:root with m\w+ 0755",
        ),
        (
            "chown nobody queue queue/* && chmod 400 queue/snappea.sqlite3",
            r"which belongs to nobody:root with mode 0400.*run: chmod u\+rw \S+/snappea.sqlite3",
        ),
        (
            "chmod 777 queue && chmod 666 queue/* && touch queue/snappea.sqlite3-wal",
            r"nobody may not read and write \S+/snappea.sqlite3-wal, which belongs to root:root with m\w+",
        ),
    ],
    ids=["file", "directory", "closed directory", "missing", "own mode", "wal"],
)
def test_another_user(open_project: Project, break_it: str, words: str) -> None:
    assert_said(try_all(open_project, f"{AS_NOBODY} {break_it}", NOBODY), words)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_a_file_that_may_not_be_written(project: Project) -> None:
    words = r"with mode 0400.*run: chmod u\+rw \S+/snappea.sqlite3"
    assert_said(try_all(project, "chmod 400 queue/snappea.sqlite3"), words)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_read_only_file_system(project: Project) -> None:
    queue = project.directory / "queue"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(queue)], check=True)
    try:
        project.run("django", "migrate", "--database=snappea", "-v0")
        words = r"may not read and write \S+/snappea.sqlite3.*on a read-only file system.*mount it writable"
        assert_said(try_all(project, "mount -o remount,ro queue"), words)
    finally:
        subprocess.run(["umount", str(queue)], check=True)


def test_a_locked_database(project: Project) -> None:
    """Commands that only read work; the others name the process that holds the lock."""
    database = sqlite3.connect(project.directory / "queue" / "snappea.sqlite3", isolation_level=None)
    try:
        database.execute("BEGIN IMMEDIATE")
        said = try_all(project, pages=[], commands=CHANGES)
        assert_said(said, rf"database is locked by process {os.getpid()}.*try again")
    finally:
        database.close()


def test_the_app_is_not_installed(project: Project) -> None:
    project.append("settings.py", 'INSTALLED_APPS.remove("snappea")\n')
    exit_code, output = project.try_to_run("django", "check")
    assert exit_code == 1 and 'Add it: INSTALLED_APPS = [..., "snappea"]' in output, output
