"""System checks: each with its id and a hint to paste."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.checks import WARNING
from django.db import connections, transaction

from snappea import checks
from snappea.celery import checks as celery_checks
from snappea.queue import files
from snappea.queue.database import connect
from snappea.tasks.function import registry
from tests.site import ROOT, Made, Site

Messages = Callable[[], dict[str, str]]
pytestmark = pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")


@pytest.fixture
def messages(site: Site, settings: Any) -> Messages:
    """Return a function that returns the checks' messages and hints, by id."""
    configured: Any = django_settings.DATABASES
    settings.DATABASES = {
        alias: {**values, "NAME": str(site.directory / f"{alias}.sqlite3")}
        for alias, values in configured.items()
    }

    def run() -> dict[str, str]:
        found = [*checks.check_settings(), *checks.check_database(), *checks.check_schedules()]
        found += [*checks.check_installation(), *checks.check_deployment()]
        assert all(message.hint for message in found)
        return {str(message.id): f"{message.msg} {message.hint}" for message in found}

    return run


def test_nothing_is_wrong_with_a_good_set_up(site: Site, messages: Messages) -> None:
    site.database.chmod(0o600)
    assert messages() == {}


@pytest.mark.parametrize(
    ("setting", "value", "number", "words"),
    [
        ("SNAPPEA", {"NUM_WORKER": 3}, "E001", "Did you mean 'NUM_WORKERS'?"),
        ("SNAPPEA", {"PID_FILE": "x"}, "E001", "Remove it: a lock beside"),
        ("SNAPPEA", {"WAKEUP_CALLS_DIR": "x"}, "E001", "Remove it: the wakeup file is beside the database"),
        ("SNAPPEA", {"TASK_QS_LIMIT": 10}, "E001", "Remove it: the Foreman decides"),
        ("SNAPPEA", {"JSON_ENCODER": 3}, "E001", "a subclass of json.JSONEncoder, its path, or None"),
        ("SNAPPEA", {"DATABASE": "quue"}, "E002", 'Add to settings: DATABASES["quue"] = {"ENGINE": '),
        ("ENGINE", "django.db.backends.mysql", "E003", "it must be SQLite or PostgreSQL. Write: DATABASES"),
        ("DATABASE_ROUTERS", [], "E004", 'DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]'),
        ("NAME", ":memory:", "E005", "in memory, where the Foreman cannot see it"),
        ("NAME", "file:x?mode=memory&cache=shared", "E005", "in memory"),
        ("NAME", "", "E005", "in memory"),
        (
            "NAME",
            "default.sqlite3",
            "E006",
            "is the same file as the database 'default'. Give the queue its own file",
        ),
        ("MEDIA_ROOT", ".", "E008", "is under MEDIA_ROOT"),
        ("STATIC_ROOT", ".", "E008", "is under STATIC_ROOT"),
        ("ATOMIC_REQUESTS", True, "E009", 'DATABASES["snappea"]["ATOMIC_REQUESTS"] = False'),
        ("SCHEDULES", {"cron": "0 24 * * *"}, "E011", "cron='0 24 * * *': the hour '24' is wrong."),
        ("SCHEDULES", {"cron": "* * * * *", "timezone": "Mars"}, "E011", "no such time zone"),
        ("SCHEDULES", {"every": 5, "args": []}, "E013", "missing a required argument: 'key'"),
        ("SCHEDULES", {"every": 5, "task": "shop.gone"}, "E013", "Unknown task 'shop.gone'"),
    ],
)
def test_what_is_wrong_is_named_with_the_cure(
    site: Site, settings: Any, messages: Messages, setting: str, value: Any, number: str, words: str
) -> None:
    if setting == "SCHEDULES":
        entry = {"task": "tests.playground.tasks.record", "args": [1], **value}
        setting, value = "SNAPPEA", {"SCHEDULES": [entry]}
    if setting in ("ENGINE", "NAME", "ATOMIC_REQUESTS"):
        if value == "default.sqlite3":
            value = site.directory / value
        settings.DATABASES["snappea"][setting] = value
    else:
        setattr(settings, setting, str(site.directory) if value == "." else value)
    found = messages()
    assert words in found[f"snappea.{number}"], found


def test_a_network_file_system(site: Site, messages: Messages, monkeypatch: pytest.MonkeyPatch) -> None:
    here = files.file_system(str(site.database))
    assert here and here not in files.NETWORK_FILE_SYSTEMS
    monkeypatch.setattr(checks, "NETWORK_FILE_SYSTEMS", {here})
    assert "is on a network file system" in messages()["snappea.E007"]


def test_an_old_sqlite(messages: Messages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlite3.sqlite_version_info", (3, 34, 1))
    assert "needs 3.35 or later" in messages()["snappea.E010"]


def test_an_extra_that_is_not_installed(settings: Any, messages: Messages, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    settings.SNAPPEA = {"SCHEDULES": [{"task": "tests.playground.tasks.nothing", "cron": "* * * * *"}]}
    assert "Run: pip install 'django-snappea[cron]'" in messages()["snappea.E012"]


def test_files_that_everybody_can_read(site: Site, messages: Messages, settings: Any) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        path = Path(directory, "snappea.sqlite3")
        settings.DATABASES["snappea"]["NAME"] = path
        path.touch()
        path.chmod(0o644)
        Path(directory).chmod(0o700)
        assert "snappea.W001" not in messages(), "others do not get there"
        Path(directory).chmod(0o711)
        assert f"chmod o= {path}" in messages()["snappea.W001"]


def test_a_new_database_is_for_its_owner(site: Site, messages: Messages) -> None:
    """So that a container's second start gives no warning."""
    for mode, wanted in ((0o755, 0o600), (0o2770, 0o660), (0o775, 0o660)):
        site.directory.chmod(mode)
        connections["snappea"].close()
        for file in site.directory.glob("snappea.sqlite3*"):
            file.unlink()
        connect()
        assert site.database.stat().st_mode & 0o777 == wanted
        assert Path(f"{site.database}-wal").stat().st_mode & 0o777 == wanted
        assert "snappea.W001" not in messages()


@pytest.mark.parametrize(
    ("kind", "number", "words"),
    [
        ("virtiofs", "E007", "where WAL mode loses data"),
        ("fuse.s3fs", "E007", "where WAL mode loses data"),
        ("fuse.rclone", "E007", "where WAL mode loses data"),
        ("drvfs", "E007", "where WAL mode loses data"),
        ("tmpfs", "W032", "restarting the machine"),
        ("overlay", "I031", "is lost with the container"),
    ],
)
def test_a_place_that_is_not_fit(
    site: Site, messages: Messages, monkeypatch: pytest.MonkeyPatch, kind: str, number: str, words: str
) -> None:
    monkeypatch.setattr(checks, "file_system", lambda path: kind)
    found = messages()
    assert words in found[f"snappea.{number}"] and kind in found[f"snappea.{number}"]


def test_a_relative_name(site: Site, messages: Messages, settings: Any) -> None:
    settings.DATABASES["snappea"]["NAME"] = "snappea.sqlite3"
    assert "relative NAME 'snappea.sqlite3'" in messages()["snappea.W031"]


def run_check(site: Site, *flags: str, **settings: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "django", "check", *flags],
        env=site.environment(**settings),
        capture_output=True,
        text=True,
    )


def test_manage_check_prints_them(site: Site) -> None:
    assert run_check(site).returncode == 0
    done = run_check(site, NUM_WORKRES=3)
    assert done.returncode == 1
    assert "(snappea.E001) SNAPPEA has an unknown key 'NUM_WORKRES'." in done.stderr
    assert "HINT: Did you mean 'NUM_WORKERS'?" in done.stderr


def test_postgres_needs_psycopg(site: Site, settings: Any, messages: Messages, monkeypatch: Any) -> None:
    settings.DATABASES["snappea"]["ENGINE"] = "django.db.backends.postgresql"
    assert messages() == {}
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "pip install 'django-snappea[postgres]'" in messages()["snappea.E014"]


SUMMARY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["description"]


def install(directory: Path, name: str, version: str, summary: str = "Theirs", **files: str) -> None:
    """Write the metadata of an installed distribution."""
    metadata = directory / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", f"Summary: {summary}"]
    (metadata / "METADATA").write_text("\n".join(lines))
    for file, text in files.items():
        (metadata / f"{file}.json").write_text(text)


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        ({}, "django-snappea"),
        ({"url": "file:///srv/my%20wheels/x.whl", "archive_info": {}}, "'/srv/my wheels/x.whl'"),
        ({"url": "file:///srv/clone", "dir_info": {"editable": True}}, "-e /srv/clone"),
        ({"url": "https://example.com/x.git", "vcs_info": {"vcs": "git"}}, "git+https://example.com/x.git"),
    ],
)
def test_two_distributions_of_one_module(
    site: Site, messages: Messages, monkeypatch: Any, origin: dict[str, Any], source: str
) -> None:
    install(site.directory, "django-snappea", "0.7.0", SUMMARY, direct_url=json.dumps(origin))
    monkeypatch.syspath_prepend(str(site.directory))
    assert "snappea.E016" not in messages()
    install(site.directory, "snappea", "1.0.1")
    told = messages()["snappea.E016"]
    assert "Both django-snappea and snappea 1.0.1 are installed" in told
    cure = f"pip uninstall -y snappea && pip install --force-reinstall --no-deps {source}"
    assert told.endswith(cure), told


def test_the_foreman_does_not_start_on_two_distributions(site: Site) -> None:
    """Except with remains of our distribution under its old name."""
    install(site.directory, "django-snappea", "0.7.0", SUMMARY)
    install(site.directory, "snappea", "1.0.1")
    site.variables["PYTHONPATH"] = os.pathsep.join([str(site.directory), str(ROOT)])
    for flags, words in (
        ([], "(snappea.E016)"),
        (["--skip-checks"], "CommandError: Both django-snappea"),
    ):
        refused = site.manage("runsnappea", *flags)
        assert refused.wait() == 1
        assert words in refused.output() and "pip uninstall -y snappea" in refused.output()
    install(site.directory, "snappea", "1.0.1", SUMMARY)
    assert run_check(site).returncode == 0


def test_files_of_the_other_project_in_place_of_ours(site: Site) -> None:
    """It was installed last, as the remains of ours tell."""
    shutil.copytree(ROOT / "snappea", site.directory / "snappea")
    for file in ("__init__.py", "models.py", "foreman.py"):
        (site.directory / "snappea" / file).write_text("")
    install(site.directory, "django-snappea", "0.7.0", SUMMARY)
    install(site.directory, "snappea", "1.0.1")
    code = "from django.template.backends.django import get_installed_libraries as f; f()"
    done = subprocess.run(
        [sys.executable, "-c", f"import django; django.setup(); {code}"],
        env={**site.environment(), "PYTHONPATH": f"{site.directory}{os.pathsep}{ROOT}"},
        cwd=site.directory,
        capture_output=True,
        text=True,
    )
    assert "Both django-snappea and snappea 1.0.1 are installed" in done.stderr.splitlines()[-1], done.stderr


def test_errors_name_the_distribution_that_is_ours() -> None:
    for path in (ROOT / "snappea").rglob("*.py"):
        assert not re.search(r"""(?<!django-)\bsnappea\[(?!["'])""", path.read_text()), path


def test_tasks_that_run_nothing_are_named(made: Made) -> None:
    assert checks.check_functions() == []

    @made
    def numbers() -> Iterator[int]:
        yield 1

    [warning] = checks.check_functions()
    assert warning.id == "snappea.W021" and "tests.made runs nothing: it has a `yield`" in warning.msg
    del registry["tests.made"]

    @made
    @transaction.atomic
    async def save() -> None: ...

    [warning] = checks.check_functions()
    assert "`async def` behind a synchronous decorator" in warning.msg and warning.hint


def test_each_check_is_tested_here() -> None:
    source = "".join(Path(str(each.__file__)).read_text() for each in (checks, celery_checks))
    here = Path(__file__).read_text() + (Path(__file__).parent / "celery/test_engine.py").read_text()
    here += (Path(__file__).parent / "tasks/test_discovery.py").read_text()
    numbers = {line.split("snappea.")[1][:4] for line in source.splitlines() if 'id="snappea.' in line}
    assert numbers and all(number in here for number in numbers)


def test_an_engine_that_builds_on_djangos_own(site: Site, settings: Any, messages: Messages) -> None:
    settings.DATABASES["snappea"]["ENGINE"] = "tests.sqlite_plus"
    settings.DATABASES["snappea"]["NAME"] = "snappea.sqlite3"
    assert messages().keys() == {"snappea.W031"}
    settings.DATABASES["snappea"]["NAME"] = ":memory:"
    assert messages().keys() == {"snappea.E005"}


def test_a_queue_that_cannot_be_used(site: Site, messages: Messages) -> None:
    connections["snappea"].close()
    assert checks.check_availability() == []
    assert connections["snappea"].connection is None, "a check leaves no file open"
    site.database.unlink()
    (found,) = checks.check_availability()
    assert found.id == "snappea.I001" and not found.is_serious(WARNING), "nothing to stop a first start for"
    assert found.hint == "Run: python manage.py migrate --database=snappea"
    assert checks.check_availability(databases=["default"]) == []
    assert not site.database.exists()
    site.database.write_text("This is no database. " * 500)
    (found,) = checks.check_availability()
    assert found.id == "snappea.W010" and "is not a SQLite database" in found.msg


def test_the_recipient_of_alerts(settings: Any) -> None:
    def found() -> list[str]:
        return [f"{message.id} {message.msg}" for message in checks.check_alerts()]

    settings.SNAPPEA = {"ALERT": {}}
    assert not found()
    settings.ADMINS = []
    assert "snappea.W033" in found()[0] and "ADMINS" in found()[0]
    settings.SNAPPEA = {"ALERT": {"TO": "shop.nowhere"}}
    assert "snappea.E018" in found()[0] and "shop" in found()[0]
    settings.SNAPPEA = {"ALERT": {"TO": "tests.playground.alerted.note"}}
    assert not found()
