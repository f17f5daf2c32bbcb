"""The tutorial, followed from an empty directory to the services of the deployed site."""

import contextlib
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.docs.blocks import BY_PAGE, Block, titled
from tests.docs.newcomer import expect, put, type_in
from tests.projects import Project, Running
from tests.site import wait_until

pytestmark = pytest.mark.long

PAGE = "tutorial.md"
BLOCKS = BY_PAGE[PAGE]
BIN = str(Path(sys.executable).parent)


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def answer(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as response:
        return str(response.read().decode())


def test_each_step(tmp_path: Path) -> None:
    project = Project(tmp_path, {}, "proj.settings")
    port = free_port()
    with contextlib.ExitStack() as stack:
        running, output = None, ""
        for block in BLOCKS[: deployment()]:
            text = block.text.replace("8000", port)
            if block.is_file:
                put(project, block)
                if running and block.path == "mail/tasks.py":
                    wait_for_restart(running, project.directory / block.path)
            elif text == "python manage.py runsnappea\n":
                running = stack.enter_context(project.running(text, "tasks ready"))
            elif text == "python manage.py runserver\n":
                stack.enter_context(project.running(f"{text.strip()} {port}"))
                wait_until(lambda: is_listening(port))
            elif text.startswith("curl "):
                output = answer(text.split()[1])
            elif block.language == "text":
                expect(block, running or fail(block), output)
            else:
                output = type_in(project, block._replace(text=text))


def deployment() -> int:
    """Return the number of the first block of the deployment."""
    return next(at for at, block in enumerate(BLOCKS) if block.heading == "Deploy it")


def wait_for_restart(running: Running, file: Path) -> None:
    """Wait until the Foreman has noticed a change. A change within a second of its start is not noticed."""
    starts = running.output().count("tasks ready")
    until = time.monotonic()

    def is_restarted() -> bool:
        nonlocal until
        if time.monotonic() > until:
            file.touch()
            until = time.monotonic() + 5
        return running.output().count("tasks ready") > starts

    wait_until(is_restarted, running.output())


def is_listening(port: str) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", int(port))) == 0


def fail(block: Block) -> Running:
    raise AssertionError(f"no Foreman runs yet at line {block.line}")


def test_the_services(tmp_path: Path) -> None:
    """As systemd would run them, in other directories and as this user."""
    project = Project(tmp_path, {}, "proj.settings")
    project.shell("django-admin startproject proj .\npython manage.py startapp mail")
    for block in BLOCKS:
        if block.is_file:
            put(project, block)
    (collect,) = re.findall(r"^sudo \S+/python /srv/proj/(manage.py collectstatic .*)$", text(), re.MULTILINE)
    project.shell(f"python {collect}")
    (tmp_path / "data").mkdir()
    project.variables = dict(line.split("=", 1) for line in titled(PAGE, "/etc/proj.env").splitlines())
    project.variables["DATA_DIR"] = str(tmp_path / "data")
    port = free_port()
    for command in commands("snappea", "ExecStartPre"):
        project.shell(command)
    (start,), (serve,) = commands("snappea", "ExecStart"), commands("gunicorn", "ExecStart")
    with (
        project.running(start, "tasks ready") as foreman,
        project.running(serve.replace("8000", port), "Listening at"),
    ):
        assert "Log in" in answer(f"http://127.0.0.1:{port}/admin/login/")
        assert answer(f"http://127.0.0.1:{port}/static/admin/css/base.css")
        assert "on its way" in answer(f"http://127.0.0.1:{port}/welcome/1/")
        foreman.wait_for_output("Failed mail.tasks.send_mail #")
    assert {path.name for path in (tmp_path / "data").iterdir()} >= {"db.sqlite3", "snappea.sqlite3"}


def text() -> str:
    return "".join(block.text for block in BLOCKS)


def commands(unit: str, key: str) -> list[str]:
    """Return the commands of a unit, as they would be here."""
    lines = re.findall(rf"^{key}=(.*)$", titled(PAGE, f"/etc/systemd/system/{unit}.service"), re.MULTILINE)
    return [line.replace("/srv/proj/.venv/bin", shlex.quote(BIN)) for line in lines]


@pytest.mark.needs("systemd-analyze")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    paths = [tmp_path / f"{unit}.service" for unit in ("snappea", "gunicorn")]
    for path in paths:
        path.write_text(titled(PAGE, f"/etc/systemd/system/{path.name}").replace("/srv/proj/.venv/bin", BIN))
    done = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
