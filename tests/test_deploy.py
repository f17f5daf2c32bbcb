"""The files in example_project/deploy, tried as far as that goes without systemd and without containers."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from example_project.settings import DSN_KEYS
from snappea.conf import Settings
from snappea.foreman.loop import LAST_WORDS
from snappea.foreman.maintenance import LOOK_EVERY
from tests.docs.blocks import of
from tests.projects import Project
from tests.site import DEADLINE, ROOT, wait_until

pytestmark = pytest.mark.long

DEPLOY = ROOT / "example_project" / "deploy"
UNITS = ("snappea", "gunicorn")
BIN = str(Path(sys.executable).parent)


def unit(name: str) -> str:
    return (DEPLOY / f"{name}.service").read_text()


def value(name: str, key: str) -> str:
    found = re.search(rf"^{key}=(.*)$", unit(name), re.MULTILINE)
    assert found, key
    return found[1]


def commands(name: str, key: str) -> list[list[str]]:
    """Return the commands of a unit, as they would be here."""
    lines = re.findall(rf"^{key}=(.*)$", unit(name), re.MULTILINE)
    return [shlex.split(line.replace("/srv/tracker/.venv/bin", BIN)) for line in lines]


@pytest.mark.needs("systemd-analyze")
def test_systemd_has_nothing_to_say_against_the_units(tmp_path: Path) -> None:
    for name in UNITS:
        (tmp_path / f"{name}.service").write_text(unit(name).replace("/srv/tracker/.venv/bin", BIN))
    paths = [str(tmp_path / f"{name}.service") for name in UNITS]
    done = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for path in paths:
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=yes", "--threshold=25", path],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


def test_the_numbers_fit_the_foreman() -> None:
    assert int(value("snappea", "TimeoutStopSec")) > Settings().GRACEFUL_TIMEOUT + LAST_WORDS
    assert int(value("snappea", "WatchdogSec")) > 10 * LOOK_EVERY
    grace = re.search(r"stop_grace_period: (\d+)s", (DEPLOY / "compose.yaml").read_text())
    assert grace and int(grace[1]) > Settings().GRACEFUL_TIMEOUT + LAST_WORDS


def test_both_services_may_write_the_directory_of_the_queue() -> None:
    for key in ("User", "Group", "StateDirectory", "StateDirectoryMode", "Environment"):
        assert value("snappea", key) == value("gunicorn", key)
    assert f"/var/lib/{value('snappea', 'StateDirectory')} " in value("snappea", "Environment")


@contextmanager
def running(
    command: list[str], directory: Path, log: Path, **variables: str
) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=directory, env=environment(**variables), stdout=output, stderr=output
        )
    try:
        yield process
        process.terminate()
        assert process.wait(DEADLINE) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def environment(**variables: str) -> dict[str, str]:
    ours = {name: text for name, text in os.environ.items() if not name.startswith(("DJANGO", "SNAPPEA"))}
    return {**ours, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1", **variables}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def post_event(port: int) -> None:
    """Have the tracker enqueue a task."""
    event = {"event_id": "0" * 32, "exception": {"values": [{"type": "ValueError", "value": "x"}]}}
    text = json.dumps(event)
    lines = [json.dumps({"event_id": "0" * 32}), json.dumps({"type": "event", "length": len(text)}), text]
    headers = {"X-Sentry-Auth": f"Sentry sentry_version=7, sentry_key={DSN_KEYS[1]}"}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/1/envelope/", "\n".join(lines).encode(), headers
    )
    with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
        assert answer.status == 200


def wait_for_digest(log: Path) -> None:
    wait_until(lambda: "Finished example_project.tracker.tasks.digest_event #1" in log.read_text())


def test_the_commands_of_the_units(tmp_path: Path) -> None:
    """Both say READY in their time, and stop in order."""
    port, data = free_port(), str(tmp_path)
    for command in commands("snappea", "ExecStartPre"):
        subprocess.run(command, cwd=ROOT, env=environment(EXAMPLE_DATA_DIR=data), check=True)
    (foreman,), (gunicorn,) = commands("snappea", "ExecStart"), commands("gunicorn", "ExecStart")
    gunicorn = [word.replace(":8000", f":{port}") for word in gunicorn]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(address := str(tmp_path / "notify"))
        ear.settimeout(DEADLINE)
        variables = {"EXAMPLE_DATA_DIR": data, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"}
        log = tmp_path / "foreman.log"
        with running(foreman, ROOT, log, **variables):
            assert ear.recv(4096).decode().splitlines() == ["READY=1", "WATCHDOG=1"]
            with running(gunicorn, ROOT, tmp_path / "gunicorn.log", **variables):
                while b"gunicorn" not in ear.recv(4096).lower():
                    pass  # the Foreman's watchdog
                post_event(port)
                wait_for_digest(log)


def copied(directory: Path) -> None:
    """Do what the COPY lines of the Dockerfile do."""
    ignored = shutil.ignore_patterns("__pycache__", "data")
    for line in re.findall(r"^COPY (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, directory / target, ignore=ignored)
            else:
                shutil.copy(ROOT / source, directory / target)


def service(name: str, key: str = "command") -> list[str]:
    """Return a command of a service in the compose file."""
    text = (DEPLOY / "compose.yaml").read_text()
    found = re.search(rf"^  {name}:\n(?:    .*\n)*?\s+{key}: (\[.*\])$", text, re.MULTILINE)
    assert found, name
    words: list[str] = json.loads(found[1])
    return words


def test_the_commands_of_the_containers(tmp_path: Path) -> None:
    """In a directory that holds what the image would."""
    app, data, port = tmp_path / "app", tmp_path / "data", free_port()
    app.mkdir()
    data.mkdir()
    copied(app)
    variables = {"EXAMPLE_DATA_DIR": str(data), "PYTHONPATH": str(app)}
    subprocess.run(service("migrate"), cwd=app, env=environment(**variables), check=True)
    web = re.search(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert web
    served = [word.replace("0.0.0.0:8000", f"127.0.0.1:{port}") for word in json.loads(web[1])]
    log, served_log = tmp_path / "foreman.log", tmp_path / "web.log"
    _cmd, *check = service("foreman", "test")
    assert subprocess.run(check, cwd=app, env=environment(**variables)).returncode == 1, "there is no Foreman"
    with running(service("foreman"), app, log, **variables), running(served, app, served_log, **variables):
        wait_until(lambda: "tasks ready" in log.read_text() and "Listening at" in served_log.read_text())
        subprocess.run(check, cwd=app, env=environment(**variables), check=True, timeout=DEADLINE)
        post_event(port)
        wait_until(lambda: "digest_event" in log.read_text())


SERVICE = "65534"
#: Another user, who may read all there is (the interpreter may be in root's home) and write what is his.
AS_SERVICE = (
    f"setpriv --reuid {SERVICE} --regid {SERVICE} --clear-groups "
    "--inh-caps +dac_read_search --ambient-caps +dac_read_search"
).split()


@pytest.fixture
def server() -> Iterator[Project]:
    """Return the project of the set-up as systemd shows it to a service: its user may write one directory."""
    if os.geteuid() != 0:
        pytest.skip("only root can act for another user")
    directory = Path(tempfile.mkdtemp(dir="/var/tmp"))  # pytest's own is closed to other users
    try:
        directory.chmod(0o755)
        project = Project(directory / "srv", {}, "proj.settings")
        project.shell("django-admin startproject proj . && python manage.py startapp mail")
        _install, settings, tasks, *_ = of("Installation")
        name = next(block for block in of("In production") if block.startswith("DATABASES"))
        assert f"/var/lib/{value('snappea', 'StateDirectory')}/" in name
        state = directory / "state"
        project.append("proj/settings.py", settings + name.replace("/var/lib/tracker", str(state)))
        project.write("mail/tasks.py", tasks)
        state.mkdir(mode=int(value("snappea", "StateDirectoryMode"), 8))
        os.chown(state, int(SERVICE), int(SERVICE))
        yield project
    finally:
        shutil.rmtree(directory)


@pytest.mark.needs("setpriv")
def test_what_root_did_once_does_not_keep_the_service_out(server: Project) -> None:
    """Root migrates by hand, and starts a Foreman that is killed: its files are all still there."""
    *_, call = of("Installation")
    server.shell("python manage.py migrate --database=snappea")
    with server.running("python manage.py runsnappea", "tasks ready") as running:
        running.popen.kill()
    state = server.directory.parent / "state"
    files = {path.name.removeprefix("snappea.sqlite3"): path.stat() for path in state.iterdir()}
    assert files.keys() == {"", "-wal", "-shm", "-wakeup", "-lock", "-logbook"}
    assert {(found.st_uid, found.st_gid) for found in files.values()} == {(int(SERVICE), int(SERVICE))}
    server.wrapper = AS_SERVICE
    server.shell("! touch manage.py && python manage.py migrate --database=snappea")
    with server.running("python manage.py runsnappea", "tasks ready") as running:
        assert "wakeups by inotify" in running.output()
        server.shell(call)
        running.wait_for_output("Finished mail.tasks.send_mail #1")
        assert "Cannot" not in running.output()
    assert running.popen.returncode == 0
