"""The files in example_project/deploy, as far as they can be tried without systemd and containers."""

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
from typing import Any

import pytest
import yaml

from example_project.settings import DSN_KEYS
from snappea.conf import Settings
from snappea.foreman.loop import LAST_WORDS
from snappea.foreman.sqlite_host import LOOK_EVERY
from tests.docs.blocks import BY_PAGE, of
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
    """Return the commands of a unit, with the programs of this environment."""
    lines = re.findall(rf"^{key}=(.*)$", unit(name), re.MULTILINE)
    return [shlex.split(line.replace("/srv/tracker/.venv/bin", BIN)) for line in lines]


@pytest.mark.needs("systemd-analyze")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
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
    """Send an event to the tracker, which enqueues a task."""
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
    """Both report READY, and stop with exit code 0."""
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
                    pass  # a WATCHDOG of the Foreman
                post_event(port)
                wait_for_digest(log)


def copied(directory: Path) -> None:
    """Copy what the COPY lines of the Dockerfile copy."""
    ignored = shutil.ignore_patterns("__pycache__", "data")
    for line in re.findall(r"^COPY (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, directory / target, ignore=ignored)
            else:
                shutil.copy(ROOT / source, directory / target)


COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
MANIFEST = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
WEB: list[str] = json.loads(
    re.findall(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)[0]
)


def service(name: str) -> Any:
    """Return a service of the compose file."""
    return COMPOSE["services"][name]


def resource(kind: str) -> Any:
    """Return the resource of a kind in the manifest for Kubernetes."""
    (found,) = (each for each in MANIFEST if each["kind"] == kind)
    return found


def block_of(page: str, language: str) -> str:
    """Return the block of a language that a page shows."""
    (found,) = (block.text for block in BY_PAGE[page] if block.language == language)
    return found


def test_the_pod_shares_one_disk_and_has_one_foreman() -> None:
    deployment, claim = resource("Deployment")["spec"], resource("PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert deployment["replicas"] == 1 and deployment["strategy"] == {"type": "Recreate"}
    pod = deployment["template"]["spec"]
    (volume,) = pod["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    data = re.search(r"EXAMPLE_DATA_DIR=(\S+)", (DEPLOY / "Dockerfile").read_text())
    assert data
    containers = [*pod["initContainers"], *pod["containers"]]
    for container in containers:
        assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": data[1]}]
    assert len({container["image"] for container in containers}) == 1
    assert pod["terminationGracePeriodSeconds"] > Settings().GRACEFUL_TIMEOUT + LAST_WORDS
    labels = deployment["template"]["metadata"]["labels"]
    assert labels == deployment["selector"]["matchLabels"] == resource("Service")["spec"]["selector"]


def test_the_pod_runs_what_the_containers_of_compose_run() -> None:
    """So test_the_commands_of_the_containers tries these too."""
    pod = resource("Deployment")["spec"]["template"]["spec"]
    (migrate,), (web, foreman) = pod["initContainers"], pod["containers"]
    assert [web["name"], foreman["name"]] == ["web", "foreman"]
    assert migrate["command"] == service("migrate")["command"]
    assert foreman["command"] == service("foreman")["command"]
    assert web["command"] == WEB
    check = service("foreman")["healthcheck"]["test"][1:]
    for probe in (foreman["startupProbe"], foreman["livenessProbe"]):
        *command, option, timeout = probe["exec"]["command"]
        assert [*command, option] == [*check, "--timeout"]
        assert int(timeout) < probe["timeoutSeconds"] < probe["periodSeconds"] * probe["failureThreshold"]
    assert "readinessProbe" not in foreman
    page = web["readinessProbe"]["httpGet"]
    assert page["path"] == "/" and page["port"] == web["ports"][0]["containerPort"]
    user = re.search(r"useradd --uid (\d+)", (DEPLOY / "Dockerfile").read_text())
    assert user
    context = pod["securityContext"]
    assert context["runAsNonRoot"]
    assert {context[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {int(user[1])}


def test_the_image_has_the_files_that_it_copies() -> None:
    for line in re.findall(r"^COPY (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE):
        assert all((ROOT / source).exists() for source in line.split()[:-1]), line
    build = COMPOSE["x-tracker"]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT and (ROOT / build["dockerfile"]).exists()


def test_the_page_about_systemd_shows_lines_of_the_unit() -> None:
    """Its paths are the same; it says less."""
    ours = set(unit("snappea").splitlines())
    for line in block_of("how-to/deploy-systemd.md", "ini").splitlines():
        assert line in ours or line.startswith("Description="), line
    assert f"/var/lib/{value('snappea', 'StateDirectory')}/" in block_of("how-to/deploy-systemd.md", "python")


def test_the_page_about_docker_shows_what_compose_runs() -> None:
    shown = yaml.safe_load(block_of("how-to/deploy-docker.md", "yaml"))
    for name in ("migrate", "foreman"):
        for key in (
            "command",
            "healthcheck",
            "stop_grace_period",
            "restart",
            "init",
            "volumes",
            "depends_on",
        ):
            assert shown["services"][name].get(key) == service(name).get(key), (name, key)
    (volume,) = shown["x-site"]["volumes"]
    name, directory = volume.split(":")
    assert name in shown["volumes"] and f'"{directory}/' in block_of("how-to/deploy-docker.md", "python")


def test_the_commands_of_the_containers(tmp_path: Path) -> None:
    """In a directory with the files of the image."""
    app, data, port = tmp_path / "app", tmp_path / "data", free_port()
    app.mkdir()
    data.mkdir()
    copied(app)
    variables = {"EXAMPLE_DATA_DIR": str(data), "PYTHONPATH": str(app)}
    subprocess.run(service("migrate")["command"], cwd=app, env=environment(**variables), check=True)
    served = [word.replace("0.0.0.0:8000", f"127.0.0.1:{port}") for word in WEB]
    log, served_log = tmp_path / "foreman.log", tmp_path / "web.log"
    _cmd, *check = service("foreman")["healthcheck"]["test"]
    assert subprocess.run(check, cwd=app, env=environment(**variables)).returncode == 1, "there is no Foreman"
    with (
        running(service("foreman")["command"], app, log, **variables),
        running(served, app, served_log, **variables),
    ):
        wait_until(lambda: "tasks ready" in log.read_text() and "Listening at" in served_log.read_text())
        subprocess.run(check, cwd=app, env=environment(**variables), check=True, timeout=DEADLINE)
        post_event(port)
        wait_until(lambda: "digest_event" in log.read_text())


SERVICE = "65534"
#: Another user: it may read everything (the interpreter may be in root's home), and write its own files.
AS_SERVICE = (
    f"setpriv --reuid {SERVICE} --regid {SERVICE} --clear-groups "
    "--inh-caps +dac_read_search --ambient-caps +dac_read_search"
).split()


@pytest.fixture
def server() -> Iterator[Project]:
    """Return a project as a service under systemd sees it: its user may write one directory."""
    if os.geteuid() != 0:
        pytest.skip("only root can act for another user")
    directory = Path(tempfile.mkdtemp(dir="/var/tmp"))  # pytest's own is closed to other users
    try:
        directory.chmod(0o755)
        project = Project(directory / "srv", {}, "proj.settings")
        project.shell("django-admin startproject proj . && python manage.py startapp mail")
        _install, settings, tasks, *_ = of("Installation")
        name = block_of("how-to/deploy-systemd.md", "python")
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
def test_files_that_root_made_do_not_lock_the_service_out(server: Project) -> None:
    """Root runs migrate, and starts a Foreman that is killed: all its files are left."""
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
