"""Which modules are imported: at start, for a row, never from a page; and the checks about them."""

import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from snappea.tasks.discovery import load
from snappea.tasks.function import registry
from tests import playground
from tests.projects import Project, Running
from tests.site import wait_until

pytestmark = pytest.mark.long

SETTINGS = """
from pathlib import Path

BASE_DIR = Path(__file__).parent.parent
SECRET_KEY = "only for tests"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.messages",
    "django.contrib.sessions", "snappea", "shop", "vendor",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]},
}]
SQLITE = "django.db.backends.sqlite3"
DATABASES = {
    "default": {"ENGINE": SQLITE, "NAME": BASE_DIR / "default.sqlite3"},
    "snappea": {"ENGINE": SQLITE, "NAME": BASE_DIR / "snappea.sqlite3"},
}
DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]
ROOT_URLCONF = "shop.urls"
STATIC_URL = "/static/"
MEDIA_ROOT = BASE_DIR / "shop" / "uploads"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SNAPPEA = {
    "SYNCHRONOUS": "NORMAL", "IN_TESTS": "write",
    "SCHEDULES": [{"task": "shop.reports.weekly", "every": 3600}],
}
"""
PLAIN = "from snappea import task\n\n\n@task\ndef run(): ...\n"
HARM = f"from pathlib import Path\nPath(__file__ + '-imported').touch()\n{PLAIN}"
FILES = {
    "proj/__init__.py": "",
    "proj/settings.py": SETTINGS,
    "proj/tasks.py": HARM.replace("run", "weekly"),
    "shop/__init__.py": "",
    "shop/urls.py": "from django.contrib import admin\nfrom django.urls import path\n"
    "urlpatterns = [path('admin/', admin.site.urls)]\n",
    "shop/tasks/__init__.py": "",
    "shop/tasks/nightly.py": "from snappea import task\n\n\n@task(every=3600)\ndef tick(): ...\n",
    "shop/tasks/deep/__init__.py": "",
    "shop/tasks/deep/down.py": "import snappea\n\n\n@snappea.task(name='by another name')\ndef far(): ...\n",
    "shop/tasks/test_nightly.py": "raise RuntimeError('only for tests')\n",
    "shop/reports.py": PLAIN.replace("run", "weekly"),
    "shop/services.py": HARM,
    "shop/jobs.py": "from snappea import shared_task as t\n\n\n@t(cron='0 3 * * *')\ndef dawn(): ...\n",
    "shop/bare/more.py": PLAIN,
    "shop/media/upl.py": HARM,
    "shop/uploads/__init__.py": "",
    "shop/uploads/upl.py": HARM,
    "vendor/__init__.py": "",
    "vendor/tasks.py": PLAIN + "\nimport a_queue_that_is_not_installed\n",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("modules"), FILES, "proj.settings")
    made.run("django", "migrate", "-v0")
    made.run("django", "migrate", "--database", "snappea", "-v0")
    return made


@pytest.fixture
def foreman(project: Project) -> Iterator[Running]:
    with project.running("python -m django runsnappea", "tasks ready") as running:
        yield running


ROWS = """
import sys, django
django.setup()
from snappea.models import Task
for name in sys.argv[1:]:
    Task.objects.create(task_name=name)
"""


def imported(project: Project) -> set[str]:
    """Return which of the modules were imported."""
    return {path.name.partition(".py-")[0] for path in Path(project.directory, "shop").rglob("*-imported")}


def rows(project: Project) -> dict[str, tuple[str, str]]:
    db = sqlite3.connect(project.directory / "snappea.sqlite3")
    try:
        found = db.execute("SELECT task_name, status, error FROM snappea_task").fetchall()
    finally:
        db.close()
    return {name: (status, error) for name, status, error in found}


ADMIN = """
import sys, django
django.setup()
from django.contrib.auth.models import User
from django.test import Client, override_settings
from snappea import stats
from snappea.models import Status, Task
user, _made = User.objects.get_or_create(username="ada", is_staff=True, is_superuser=True)
for status in ("failed", "ready"):
    Task.objects.create(task_name="shop.services.run", status=status)
    Task.objects.create(task_name="shop.media.upl.run", status=status)
with override_settings(ALLOWED_HOSTS=["testserver"]):
    client = Client()
    client.force_login(user)
    pages = ["", "dashboard/", "dashboard/failures/", "dashboard/workers/", "task/"]
    pages += [f"task/?q=state:{status}" for status in Status.values]
    pages += [f"task/{task.pk}/change/" for task in Task.objects.all()]
    pages += ["dashboard/type/?name=shop.services.run"]
    for page in pages:
        answer = client.get(f"/admin/snappea/{page}")
        assert answer.status_code == 200, (page, answer.status_code)
    stats.snapshot()
    assert not [name for name in sys.modules if name.startswith("shop.tasks")]
    client.get("/admin/snappea/schedule/")  # it imports the tasks of all apps, which may have schedules
Task.objects.all().delete()
print([name for name in sys.modules if name.startswith(("shop.services", "shop.media"))])
"""


def test_no_page_and_no_command_imports_what_a_row_names(project: Project) -> None:
    assert project.run("django", "shell", "--no-imports", "-v0", "-c", ADMIN).strip().endswith("[]")
    project.run("django", "shell", "-v0", "-c", ROWS.replace("sys.argv[1:]", "['shop.services.run']"))
    for command in (["status"], ["list", "ready"], ["show", "5"], ["schedules"], ["cancel", "--all"]):
        project.run("django", "snappea", *command)
    assert imported(project) == set()


def test_the_foreman_imports_what_it_may_and_says_what_it_cannot(project: Project, foreman: Running) -> None:
    names = [
        "shop.services.run",
        "shop.media.upl.run",
        "shop.uploads.upl.run",
        "vendor.tasks.run",
        "by another name",
    ]
    names += ["shop.tasks.nightly.tick", "os.system", "shop.bare.more.run"]
    call = ROWS.replace("sys.argv[1:]", repr(names))
    project.run("django", "shell", "-v0", "-c", call)
    wait_until(lambda: not {"ready", "running"} & {status for status, _error in rows(project).values()})
    left = rows(project)
    assert left.keys() == {
        "shop.media.upl.run",
        "shop.uploads.upl.run",
        "vendor.tasks.run",
        "os.system",
        "shop.bare.more.run",
    }
    assert all(status == "failed" and "Unknown task" in error for status, error in left.values())
    assert "No module named 'a_queue_that_is_not_installed'" in left["vendor.tasks.run"][1]
    assert "Cannot import vendor.tasks: ModuleNotFoundError" in foreman.output()
    assert 'vendor/tasks.py", line' in foreman.output()
    assert imported(project) == {"services"}
    listed = project.run("django", "snappea", "schedules")
    assert "shop.tasks.nightly.tick" in listed and "shop.reports.weekly" in listed and "dawn\n" not in listed


def test_what_the_checks_say(project: Project) -> None:
    exit_code, said = project.try_to_run("django", "check")
    assert exit_code == 0
    assert "(snappea.W011) Cannot import vendor.tasks: ModuleNotFoundError" in said
    assert (
        "(snappea.W012) At its start, the Foreman does not import shop.jobs, which declares shop.jobs.dawn"
        in said
    )
    assert f"add an empty {project.directory}/shop/bare/__init__.py" in said
    assert "which declares proj.tasks.weekly. They do not run" in said and "add 'proj' to INST" in said
    assert said.count("(snappea.W01") == 5, said
    project.write(
        "shop/tasks/nonsense.py", "from snappea import task\n\n\n@task(priority='high')\ndef f(): ...\n"
    )
    try:
        exit_code, said = project.try_to_run("django", "check")
        assert exit_code == 1 and "(snappea.E017) Cannot import shop.tasks.nonsense: Task" in said
    finally:
        (project.directory / "shop/tasks/nonsense.py").unlink()


HALF_WAY = """
from snappea import task
from tests.tasks.test_discovery import half_way, may_go_on

@task
def late() -> str:
    return LATER

half_way.set()
may_go_on.wait(60)
LATER = "complete"
"""
half_way, may_go_on = threading.Event(), threading.Event()


def test_a_module_that_another_thread_imports_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its tasks are known before its last line has run."""
    monkeypatch.setattr(playground, "__path__", [*playground.__path__, str(tmp_path)])
    (tmp_path / "half_way.py").write_text(HALF_WAY)
    name = "tests.playground.half_way.late"
    other = threading.Thread(target=load, args=(name,))
    other.start()
    try:
        assert half_way.wait(60)
        threading.Timer(0.5, may_go_on.set).start()
        assert load(name)() == "complete"
    finally:
        may_go_on.set()
        other.join()
        del registry[name], sys.modules["tests.playground.half_way"]
