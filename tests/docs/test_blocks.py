"""The code blocks of the manual, run in a project made by startproject. How they are marked: blocks.py.

`test_page` runs each page that is not in RUN_BY. Pages in RUN_BY have a test of their own.
"""

import re
import shutil
import tomllib
from pathlib import Path

import pytest
from django import VERSION
from django.core.management import load_command_class

from tests.docs.blocks import BY_PAGE, NOT_RUN, commands, name_of, of
from tests.docs.manual import FILES, without_blocks
from tests.docs.manual import TEXT as README
from tests.docs.newcomer import follow, foreman, is_followed, put
from tests.projects import Project
from tests.servers import Postgres
from tests.site import ROOT

pytestmark = pytest.mark.long


#: The pages that the generic runner does not run, and what runs their blocks instead. A test that unpacks
#: the blocks of a heading (`of("Retries")`) runs all that are there.
RUN_BY = {
    "README.md": "CI runs the first two; made, test_set_up, test_examples",
    "contributing.md": "our own tests: test_what_is_not_run",
    "how-to/back-up.md": "test_back_up_and_restore; tests/queue/test_backup.py while much is written",
    "how-to/hand-over-to-celery.md": "test_celery_runs_the_tasks",
    "how-to/run-on-celery.md": "test_celery_runs_the_tasks",
    "how-to/test.md": "tests/testing/test_user_projects.py",
    "how-to/use-django-tasks.md": "test_tasks_of_django",
    "how-to/use-postgresql.md": "test_postgres_as_the_queue",
    "how-to/use-tenants.md": "tests/postgres/test_tenants.py, where django-tenants is installed",
    "how-to/use-the-main-database.md": "test_the_main_database",
    "reference/calls.md": "test_tasks",
    "reference/metrics.md": "test_health_and_metrics",
    "tutorial.md": "tests/docs/test_tutorial.py",
    "reference/states.md": "test_what_people_decide",
}
#: Blocks of the other pages that are shown and not run, by page and language (or title): what tests them, or
#: why nothing does. ("how-to/deploy.md", "ini"): "tests/test_deploy.py"
SHOWN: dict[tuple[str, str], str] = {
    ("how-to/debug.md", "$ python manage.py snappea replay 42"): "tests/management/test_replay.py",
    ("how-to/deploy.md", "$ journalctl --unit snappea"): "tests/docs/test_running.py",
    ("how-to/deploy.md", "$ python manage.py snappea preflight"): "tests/monitoring/test_preflight.py",
    ("how-to/deploy-docker.md", "python"): "tests/test_deploy.py",
    ("how-to/deploy-docker.md", "yaml"): "tests/test_deploy.py",
    ("how-to/deploy-systemd.md", "ini"): "tests/test_deploy.py",
    ("how-to/deploy-systemd.md", "python"): "tests/test_deploy.py",
    (
        "how-to/migrate-from-celery.md",
        "$ python manage.py snappea import-beat --dry-run",
    ): "tests/management/test_import_beat.py",
    ("how-to/monitor.md", "$ python manage.py snappea status"): "tests/docs/test_running.py",
    ("how-to/monitor.md", "yaml"): "needs Prometheus; tests/docs/test_running.py reads the files",
    ("how-to/troubleshooting.md", "$ journalctl --unit snappea"): "tests/docs/test_running.py",
    (
        "how-to/troubleshooting.md",
        "ini",
    ): "changes the system; tests/docs/test_running.py looks for the limits",
    ("reference/logging.md", "json"): "tests/test_log.py",
    ("how-to/upgrade.md", "$ python manage.py runsnappea"): "tests/docs/test_running.py",
}


def test_no_block_slips_by() -> None:
    for name, blocks in BY_PAGE.items():
        if name in RUN_BY:
            continue
        before = None
        for block in blocks:
            printed = block.language == "text" and before and (before.is_typed or before.language == "text")
            run = block.is_file or block.is_ours or block.is_typed or printed
            shown = {(name, block.language), (name, block.title)} & SHOWN.keys()
            assert run or shown, f"{name}:{block.line}: nothing runs this block"
            before = block


def test_each_block_is_recognized() -> None:
    for file in FILES:
        fences = len(re.findall(r"^\s*```", file.read_text(), re.MULTILINE))
        assert fences == 2 * len(BY_PAGE.get(name_of(file), ())), file


def test_each_page_and_test_that_is_named_exists() -> None:
    assert RUN_BY.keys() | {page for page, _kind in SHOWN} <= BY_PAGE.keys()
    for page, kind in SHOWN:
        assert any(kind in (block.language, block.title) for block in BY_PAGE[page]), (page, kind)
    for reason in (*RUN_BY.values(), *SHOWN.values(), *NOT_RUN.values()):
        for name in re.findall(r"\btests/[\w/]+\.py", reason):
            assert (ROOT / name).exists(), name
        for name in re.findall(r"\btest_\w+(?!\.py|\w)", re.sub(r"tests/\S+", "", reason)):
            assert name in globals() or list((ROOT / "tests").rglob(f"{name}.py")), name


FOLLOWED = [name for name, blocks in BY_PAGE.items() if name not in RUN_BY and any(map(is_followed, blocks))]


@pytest.mark.parametrize("name", FOLLOWED or ["(none)"])
def test_page(newcomer: Project, name: str) -> None:
    follow(newcomer, BY_PAGE.get(name, []))


def test_what_is_not_run() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set(re.findall(r"snappea\[([\w,-]+)\]", README))
    assert named and {name for names in named for name in names.split(",")} <= extras.keys()
    files = re.findall(r"tests/\w+\.py", "".join(of("Longer checks")))
    assert files and all((ROOT / file).exists() for file in files)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory in which the README's set-up was followed, up to the Foreman."""
    project = Project(tmp_path_factory.mktemp("newcomer"), {}, "proj.settings")
    install, settings, tasks, start, _call = of("Installation")
    project.shell(f"django-admin startproject proj .\n{commands(install)}")
    project.append("proj/settings.py", settings)
    project.write("mail/tasks.py", tasks)
    assert "snappea.I001" in project.shell(commands(start)), "its database is missing until migrate has run"
    assert "no issues" in project.shell("python manage.py check\npython manage.py migrate")
    return project.directory


@pytest.fixture
def newcomer(made: Path, tmp_path: Path) -> Project:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return Project(tmp_path, {}, "proj.settings")


def test_set_up(newcomer: Project) -> None:
    _install, _settings, _tasks, start, call = of("Installation")
    assert start.endswith("python manage.py runsnappea\n")
    with foreman(newcomer) as running:
        newcomer.shell(call)
        running.wait_for_output("Finished mail.tasks.send_mail #1")
        assert "A mail to user 42" in running.output()


def test_examples(newcomer: Project) -> None:
    follow(newcomer, [block for block in BY_PAGE["README.md"] if block.heading == "Examples"])
    assert "Ran 1 test" in newcomer.shell("python manage.py test mail")


def test_tasks(newcomer: Project) -> None:
    """The examples of results, retries and time limits, all in one tasks.py, with what becomes of each."""
    add, get = of("AsyncResult")
    newcomer.append("mail/tasks.py", f"\n{add}")
    for page in ("how-to/retry.md", "how-to/limit-time.md"):
        for block in filter(lambda block: block.is_file, BY_PAGE[page]):
            put(newcomer, block)
    newcomer.write("page", "a page")
    newcomer.shell("python manage.py check")
    with foreman(newcomer) as running:
        assert newcomer.shell(get).splitlines()[-1] == "3"
        for call in (
            f"fetch --args '[\"file://{newcomer.directory}/page\"]'",
            "fetch --args '[\"file:///nowhere\"]'",
            "charge --args '[1]'",
            "crawl --args '[1000]'",
            "convert --args '[1]'",
        ):
            newcomer.shell(f"python manage.py snappea enqueue mail.tasks.{call}")
        for name in ("fetch", "crawl", "convert"):
            running.wait_for_output(f"Finished mail.tasks.{name}")
        newcomer.shell("python manage.py snappea enqueue mail.tasks.charge --args '[1, true]' --wait")
        assert "mail.tasks.charge" in newcomer.shell("python manage.py snappea list scheduled")
        assert "URLError" in newcomer.shell("python manage.py snappea show 3"), "it has been retried"


def test_what_people_decide(newcomer: Project) -> None:
    (decisions,) = of("Operations")
    newcomer.write("decide.py", decisions)
    newcomer.shell("python manage.py snappea enqueue mail.tasks.send_mail --args '[1]' --queue mail")
    newcomer.shell("python manage.py shell < decide.py")
    assert not newcomer.shell("python manage.py snappea list ready --json").strip(" []\n"), "it was cancelled"


def test_tasks_of_django(newcomer: Project) -> None:
    blocks = BY_PAGE["how-to/use-django-tasks.md"]
    if VERSION < (6, 0):
        blocks = [block._replace(text=block.text.replace("django.tasks", "django_tasks")) for block in blocks]
    follow(newcomer, blocks)


def test_health_and_metrics(newcomer: Project) -> None:
    (urls,) = of("Health and metrics")
    newcomer.append("proj/urls.py", urls)
    newcomer.append("proj/settings.py", 'SNAPPEA["MONITORING_TOKEN"] = "open"\nALLOWED_HOSTS = ["*"]\n')
    ask = (
        "from django.test import Client\n"
        "print([Client().get(path, headers=headers).status_code"
        " for headers in ({}, {'Authorization': 'Bearer open'}) for path in ('/health/', '/metrics/')])"
    )
    with foreman(newcomer):
        answers = newcomer.run("django", "shell", "-c", ask)
    assert answers.splitlines()[-1] == "[403, 403, 200, 200]", answers


@pytest.mark.needs("sqlite3")
def test_back_up_and_restore(newcomer: Project) -> None:
    copies, python = of("Back up")
    (restore,) = of("Restore")
    newcomer.shell("python manage.py snappea enqueue mail.tasks.send_mail --args '[1]' --countdown 1h")
    with foreman(newcomer):
        newcomer.shell(copies)
        newcomer.write("typed", python)
        newcomer.shell("python typed")
    for name in ("copy", "smaller-copy", "another-copy"):
        assert newcomer.shell(f"sqlite3 {name}.sqlite3 'SELECT count(*) FROM snappea_task'") == "1\n"
    newcomer.shell("python manage.py snappea cancel --all")
    assert "\nok\n" in f"\n{newcomer.shell(commands(restore))}"
    assert "mail.tasks.send_mail" in newcomer.shell("python manage.py snappea list scheduled")
    with foreman(newcomer):
        newcomer.shell("python manage.py snappea check")


@pytest.mark.needs("initdb")
def test_postgres_as_the_queue(newcomer: Project, postgres: Postgres) -> None:
    """With what waited in the old queue taken along."""
    settings, switch = of("Use PostgreSQL for the queue")
    (move,) = of("Move the queue without losing a call")
    _install, _settings, _tasks, _start, call = of("Installation")
    newcomer.shell(call)
    postgres.create("newcomer")
    for key, value in postgres.settings("newcomer").items():
        settings = re.sub(rf'("{key}": )".*"', rf'\1"{value}"', settings)
    settings += f'DATABASES["snappea_postgres"]["PORT"] = {postgres.port}\n'
    newcomer.append("proj/settings.py", settings)
    newcomer.shell(move)
    newcomer.append("proj/settings.py", switch)
    newcomer.shell(move)
    with foreman(newcomer) as running:
        running.wait_for_output("Finished mail.tasks.send_mail #1 ")
        newcomer.shell(call)
        running.wait_for_output("Finished mail.tasks.send_mail #10000002 ")
    postgres.drop("newcomer")


def test_the_main_database(newcomer: Project) -> None:
    settings, migrate = of("Keep the queue in the main database")
    path = newcomer.directory / "proj/settings.py"
    lines = path.read_text().splitlines(keepends=True)
    before = [line for line in lines if not line.startswith(('DATABASES["snappea"]', "DATABASE_ROUTERS"))]
    assert len(lines) - len(before) == 2
    path.write_text("".join(before) + settings)
    newcomer.shell(migrate)
    enqueue = (
        "from django.db import transaction\nfrom mail.tasks import send_mail\n"
        "with transaction.atomic():\n    send_mail.delay(1)\n"
        "with transaction.atomic():\n    send_mail.delay(2)\n    transaction.set_rollback(True)\n"
    )
    with foreman(newcomer) as running:
        newcomer.run("django", "shell", "-c", enqueue)
        newcomer.shell("python manage.py snappea enqueue mail.tasks.send_mail --args '[3]'")
        running.wait_for_output("A mail to user 3")
    assert "A mail to user 1" in running.output() and "A mail to user 2" not in running.output()


@pytest.mark.needs("redis-server")
def test_celery_runs_the_tasks(newcomer: Project, redis: str) -> None:
    """And what still waits is handed over."""
    settings, app, package, start = of("Run tasks on Celery")
    (hand_over,) = of("Hand over to Celery")
    *_, call = of("Installation")
    check, worker, beat = start.splitlines()
    newcomer.shell(call)
    newcomer.append("proj/settings.py", settings.replace("redis://", redis.removesuffix("0") + "7"))
    newcomer.write("proj/celery.py", app)
    newcomer.write("proj/__init__.py", package)
    newcomer.shell(check)
    flags = "--loglevel INFO"
    with (
        newcomer.running(f"{worker} --pool solo {flags}", " ready.") as running,
        newcomer.running(f"{beat} {flags}", "beat: Starting"),
    ):
        newcomer.shell(call.replace("42", "43"))
        running.wait_for_output("A mail to user 43")
        newcomer.shell(hand_over)
        running.wait_for_output("A mail to user 42")


def mentioned() -> set[str]:
    """Return the command lines that stand in the text and in the tables."""
    text = "\n".join(map(without_blocks, FILES))
    found = re.findall(r"`(?:python )?(?:manage\.py )?((?:runsnappea|snappea|migrate) [a-z-][^`]*)`", text)
    assert len(found) > 10
    return set(found)


@pytest.mark.parametrize("line", sorted(mentioned()))
def test_each_command_that_is_mentioned_is_accepted(line: str) -> None:
    name, *arguments = (word.strip("'\"") for word in line.split())
    parser = load_command_class("snappea", name).create_parser("manage.py", name)
    parser.parse_args(arguments)
