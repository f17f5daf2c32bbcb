"""Servers for tests: each on a free port, in a directory of its own, as an unprivileged user.

Where a program is missing the tests are skipped, loudly; with CI set there is no excuse.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

#: In which package a program is, if it is called otherwise.
PACKAGES = {"initdb": "postgresql", "chromedriver": "chromium-driver", "chattr": "e2fsprogs"}
#: With what the reason begins why something was skipped that should not be.
NOT_TRIED = "NOT TRIED"


def program(name: str) -> str | None:
    """Return where a program is, None if it is not installed; Debian keeps PostgreSQL's apart."""
    apart = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(apart[-1]) if apart else None)


def needed(name: str) -> str:
    """Return where a program is. Skips the test where there is none; fails it with CI set."""
    found = program(name)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed, and CI must not skip this")
        pytest.skip(f"{NOT_TRIED}: {name} is not installed (apt-get install {PACKAGES.get(name, name)})")
    return found


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _unprivileged() -> dict[str, Any]:
    """Return the arguments that start a server as another user: root must not start it."""
    if os.geteuid() != 0:
        return {}
    names = [entry.pw_name for entry in pwd.getpwall()]
    return {"user": "postgres" if "postgres" in names else "nobody"}


class Postgres:
    """A PostgreSQL server. A power cut may take what it has, unless it is durable: it waits for no disk.

    `primary`: the server that it is a standby of.
    """

    def __init__(self, is_durable: bool = False, primary: "Postgres | None" = None) -> None:
        self._fsync = "on" if is_durable else "off"
        self.directory = Path(tempfile.mkdtemp(prefix="snappea-postgres-"))
        self.port = free_port()
        self._as_whom = _unprivileged()
        if self._as_whom:
            shutil.chown(self.directory, self._as_whom["user"])
        if primary:
            source = f"host=127.0.0.1 port={primary.port} user=snappea application_name=standby"
            self._run("pg_basebackup", "-d", source, "-R", "-X", "stream", "-c", "fast", "--no-sync")
        else:
            self._run("initdb", "-A", "trust", "-U", "snappea", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        self.start()

    def _run(self, name: str, *arguments: str) -> None:
        command = [str(program(name)), "-D", str(self.directory / "data"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=120, **self._as_whom)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"

    def start(self) -> None:
        """Start it, on the same port as ever."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.directory,
            "fsync": self._fsync,
            "max_connections": 200,
            "wal_retrieve_retry_interval": "200ms",  # soon after the primary is back
        }
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self._popen = subprocess.Popen(
                [str(program("postgres")), "-D", str(self.directory / "data"), *flags],
                stdout=log,
                stderr=log,
                cwd="/",
                **self._as_whom,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                self.connect("postgres").close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.directory / "log").read_text()
                time.sleep(0.01)

    def stop(self, how: int = signal.SIGINT) -> None:
        """Stop it: SIGINT ends connections in good order, SIGQUIT as a crash would."""
        self._popen.send_signal(how)
        self._popen.wait(60)

    def replicate(self) -> "Postgres":
        """Return a new standby. From now on a commit returns when the standby shows it, too."""
        standby = Postgres(primary=self)
        with self.connect("postgres") as connection:
            connection.execute("ALTER SYSTEM SET synchronous_commit = 'remote_apply'")
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
            connection.execute("SELECT pg_reload_conf()")
            deadline = time.monotonic() + 60
            while connection.execute("SELECT sync_state FROM pg_stat_replication").fetchall() != [("sync",)]:
                assert time.monotonic() < deadline, (standby.directory / "log").read_text()
                time.sleep(0.01)
        return standby

    def promote(self) -> None:
        """Make a standby the primary, with no standby of its own."""
        with self.connect("postgres") as connection:
            connection.execute("SELECT pg_promote()")
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")

    def close(self) -> None:
        """Stop it for good, and delete all that it had."""
        if self._popen.poll() is None:
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory)

    def connect(self, database: str) -> "psycopg.Connection[Any]":
        """Return a connection from outside Django."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="snappea", dbname=database, autocommit=True
        )

    def create(self, database: str, template: str = "template1") -> None:
        """Make a database that is a copy of another one."""
        with self.connect("postgres") as connection:
            names = sql.Identifier(database), sql.Identifier(template)
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))

    def drop(self, database: str) -> None:
        """Delete a database, even if it is in use."""
        with self.connect("postgres") as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))

    def settings(self, database: str) -> dict[str, Any]:
        """Return what stands in DATABASES."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "USER": "snappea",
            "NAME": database,
        }


@contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """Run Redis, which keeps nothing on the disk, until the block ends; yield its URL."""
    port, log = free_port(), directory / "redis.log"
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [needed("redis-server"), *options, "--dir", str(directory)], stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + 60
        while not _is_listening(port):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
