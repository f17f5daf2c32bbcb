"""Servers that tests need, from Debian's packages: each on a free port, in a directory of its own.

Where one cannot be had the tests are skipped, loudly; with CI set there is no excuse.
"""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

#: In which package a program is, if it is called otherwise.
PACKAGES = {"chromedriver": "chromium-driver", "chattr": "e2fsprogs", "postgres": "postgresql"}
#: Where Debian puts programs that are not in PATH.
PLACES = {"postgres": "/usr/lib/postgresql/*/bin", "initdb": "/usr/lib/postgresql/*/bin"}
#: With what the reason begins why something was skipped that should not be.
NOT_TRIED = "NOT TRIED"
#: How long a server may take to start, in seconds.
DEADLINE = 60.0


def program(name: str) -> str:
    """Return the path of a program. Skips the test where there is none; fails it with CI set."""
    found = shutil.which(name)
    if found is None and name in PLACES:
        places = sorted(Path("/").glob(f"{PLACES[name].lstrip('/')}/{name}"))
        found = str(places[-1]) if places else None
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed, and CI must not skip this")
        pytest.skip(f"{NOT_TRIED}: {name} is not installed (apt-get install {PACKAGES.get(name, name)})")
    return found


def free_port() -> int:
    """Return a port of this host that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    """Tell whether somebody answers on a port of this host."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(
    command: Sequence[str], directory: Path, is_ready: Callable[[], bool], user: str | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server in a directory until the block ends. `user`: as whom, if root would be refused."""
    log = directory / "server.log"
    as_user = user if user and os.geteuid() == 0 else None
    if as_user:
        os.chown(directory, pwd.getpwnam(as_user).pw_uid, -1)
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=directory, stdout=output, stderr=output, user=as_user)
    try:
        end = time.monotonic() + DEADLINE
        while not is_ready():
            assert process.poll() is None and time.monotonic() < end, f"{command}: {log.read_text()}"
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """Run Redis, which keeps nothing on the disk; yield its URL."""
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    command = [program("redis-server"), *options, "--dir", str(directory)]
    with running(command, directory, lambda: is_listening(port)):
        yield f"redis://127.0.0.1:{port}/0"
