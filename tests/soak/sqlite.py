"""The soak on SQLite: one Foreman, and a small disk that can be filled."""

import contextlib
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.site import Process, Site

from . import faults
from .ground import Ground, Scene


class SqliteGround(Ground):
    """The queue in a file. `disk`: the small disk on which it is, if there is one."""

    expected = (
        "database is locked",
        "full",
        "Another Foreman is at work",
        "write-ahead log has grown",
    )

    def __init__(self, directory: Path, disk: Path | None) -> None:
        self.site = site = Site(directory)
        self.disk = disk
        site.settings["SYNCHRONOUS"] = "FULL"
        site.database = (disk or site.directory) / "snappea.sqlite3"
        site.variables["SNAPPEA_TEST_DATABASE"] = str(site.database)
        self.first = []
        self.survived = [*faults.SURVIVED, read_for_long, delete_the_wakeup_file]
        self.deadly = list(faults.DEADLY)
        if disk:
            self.survived.append(fill_the_disk)
            self.deadly.append(kill_while_full)

    def variables(self, post: int) -> Mapping[str, str]:
        return {}

    def is_at_work(self, process: Process) -> bool:
        lock = Path(f"{self.site.database}-lock")
        return lock.exists() and f"pid {process.pid} on" in lock.read_text()

    @contextmanager
    def locked(self, scene: Scene) -> Iterator[None]:
        connection = sqlite3.connect(self.site.database, timeout=30, isolation_level=None)
        with scene.supervisor.tolerating(1):
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield
            finally:
                connection.close()

    @contextmanager
    def full(self, scene: Scene) -> Iterator[None]:
        """Keep the disk full, although other processes free some space."""
        assert self.disk
        filler = self.disk / "filler"
        with scene.supervisor.tolerating(1):
            try:
                with filler.open("wb", buffering=0) as file:
                    for size in (1_048_576, 4096):
                        with contextlib.suppress(OSError):
                            while True:
                                file.write(bytes(size))
                    yield
            finally:
                os.truncate(filler, 0)  # a process that is starting may still have it open
                filler.unlink()

    def log_size(self) -> int:
        try:
            return Path(f"{self.site.database}-wal").stat().st_size
        except OSError:
            return 0

    def unrest(self) -> str:
        from snappea.foreman.sqlite_host import LARGE_WAL  # needs the apps

        size = self.log_size()
        return f"a write-ahead log of {size:,} bytes" if size > LARGE_WAL else ""

    def damage(self) -> list[str]:
        found = self.site.sql("PRAGMA integrity_check")
        return [] if found == [("ok",)] else [f"integrity_check: {found}"]

    def close(self) -> None:
        if self.disk:
            subprocess.run(["umount", "-l", self.disk], check=False)


def small_disk(place: Path, minutes: float) -> Path | None:
    """Mount a file system that can be filled, with room for what is kept; None if not permitted."""
    place.mkdir()
    size = f"size={64 + int(4 * minutes)}m"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", place], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"NOT TRIED: a full disk, because none can be mounted here: {done.stderr.strip()}")
        return None
    return place


def read_for_long(scene: Scene) -> None:
    """Hold a snapshot, so that the write-ahead log cannot be checkpointed."""
    connection = sqlite3.connect(scene.site.database, isolation_level=None)
    try:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM snappea_pause").fetchone()
        time.sleep(scene.chance.uniform(1, 8))
    finally:
        connection.close()


def delete_the_wakeup_file(scene: Scene) -> None:
    """Delete the file that enqueuers touch."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{scene.site.database}-wakeup")


def fill_the_disk(scene: Scene) -> None:
    """Fill the disk for some seconds."""
    assert isinstance(scene.ground, SqliteGround)
    with scene.ground.full(scene):
        time.sleep(scene.chance.uniform(0.5, 5))


def kill_while_full(scene: Scene) -> None:
    """Kill the Foreman while the disk is full."""
    assert isinstance(scene.ground, SqliteGround)
    with scene.ground.full(scene):
        time.sleep(scene.chance.uniform(0, 1))
        faults.kill(scene)
        time.sleep(scene.chance.uniform(0, 4))
