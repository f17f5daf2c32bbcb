"""The faults: each is a function of the scene, and is over when it returns."""

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.clock import offset, set_clock
from tests.playground.ledger import note
from tests.site import Site

from .supervisor import Supervisor


class Scene(NamedTuple):
    """What the faults affect. `disk`: the small disk with the database, if there is one."""

    site: Site
    supervisor: Supervisor
    chance: random.Random
    disk: Path | None


Fault = Callable[[Scene], None]


# faults that the Foreman survives


def stop_and_go_on(scene: Scene) -> None:
    """Stop the Foreman's process for some seconds."""
    foreman = scene.supervisor.foreman.popen
    note("stopped")
    foreman.send_signal(signal.SIGSTOP)
    time.sleep(scene.chance.uniform(0.2, 6))
    foreman.send_signal(signal.SIGCONT)
    note("continued")


def stop_an_enqueuer(scene: Scene) -> None:
    """Stop an enqueuer, perhaps while it holds the write lock."""
    enqueuer = scene.chance.choice(scene.supervisor.enqueuers).popen
    enqueuer.send_signal(signal.SIGSTOP)
    with scene.supervisor.tolerating(1):
        time.sleep(scene.chance.uniform(0.2, 4))
        enqueuer.send_signal(signal.SIGCONT)


def kill_an_enqueuer(scene: Scene) -> None:
    """Kill an enqueuer at a random moment."""
    scene.chance.choice(scene.supervisor.enqueuers).popen.send_signal(signal.SIGKILL)


def lock_the_database(scene: Scene) -> None:
    """Hold the write lock for some seconds."""
    with locked(scene):
        time.sleep(scene.chance.uniform(0.5, 8))


@contextmanager
def locked(scene: Scene) -> Iterator[None]:
    """Hold the write lock."""
    connection = sqlite3.connect(scene.site.database, timeout=30, isolation_level=None)
    with scene.supervisor.tolerating(1):
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
        finally:
            connection.close()


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
    with full(scene):
        time.sleep(scene.chance.uniform(0.5, 5))


@contextmanager
def full(scene: Scene) -> Iterator[None]:
    """Keep the disk full, although other processes free some space."""
    assert scene.disk
    filler = scene.disk / "filler"
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


def kill_the_fork_server(scene: Scene) -> None:
    """Kill the fork server. The next isolated task starts another."""
    threads = Path(f"/proc/{scene.supervisor.foreman.popen.pid}/task")
    with contextlib.suppress(OSError, IndexError):  # there may be none at the moment
        child = "".join(path.read_text() for path in threads.glob("*/children")).split()[0]
        note("forkless", "from")
        os.kill(int(child), signal.SIGKILL)
        note("forkless", "since")


def step_the_clock(scene: Scene) -> None:
    """Set the wall clock forward or back; rarely by much, and back only for a while: no tick would come."""
    directory, before = scene.site.directory, offset(scene.site.directory)
    is_far = scene.chance.random() < 0.15
    step = scene.chance.choice((-3600, 3600) if is_far else (-45, -10, -2, -0.5, 0.5, 2, 10, 45))
    step_clock(directory, before + step)
    if step == -3600:
        time.sleep(scene.chance.uniform(0.5, 5))
        step_clock(directory, before)


def step_clock(directory: Path, seconds: float) -> None:
    """Set a site's clock, and note it before and after."""
    note("clock", "before", seconds)
    set_clock(directory, seconds)
    note("clock", "after", seconds)


# faults that end the Foreman


def kill(scene: Scene) -> None:
    """Kill the Foreman with SIGKILL."""
    scene.supervisor.end_foreman(signal.SIGKILL, -signal.SIGKILL)


def kill_again_and_again(scene: Scene) -> None:
    """Kill the Foreman, and the next ones while they start."""
    for _ in range(scene.chance.randrange(2, 5)):
        kill(scene)
        time.sleep(scene.chance.uniform(0.3, 2))


def terminate(scene: Scene) -> None:
    """Ask the Foreman to stop."""
    # -15: it has not installed its handlers yet
    scene.supervisor.end_foreman(signal.SIGTERM, 0, -signal.SIGTERM)


def terminate_twice(scene: Scene) -> None:
    """Ask the Foreman to stop, and then to stop at once."""
    terminate(scene)
    time.sleep(scene.chance.uniform(0, 0.3))
    terminate(scene)


def kill_while_locked(scene: Scene) -> None:
    """Kill the Foreman while it, and the next one, wait for the write lock."""
    with locked(scene):
        time.sleep(scene.chance.uniform(0, 1))
        kill(scene)
        time.sleep(scene.chance.uniform(0, 7))


def terminate_while_locked(scene: Scene) -> None:
    """Ask the Foreman to stop while it cannot write."""
    with locked(scene):
        time.sleep(scene.chance.uniform(0, 1))
        terminate(scene)
        time.sleep(scene.chance.uniform(0, 7))


def kill_while_full(scene: Scene) -> None:
    """Kill the Foreman while the disk is full."""
    with full(scene):
        time.sleep(scene.chance.uniform(0, 1))
        kill(scene)
        time.sleep(scene.chance.uniform(0, 4))


def kill_while_stopped(scene: Scene) -> None:
    """Kill the Foreman while it is stopped."""
    note("stopped")
    scene.supervisor.foreman.popen.send_signal(signal.SIGSTOP)
    time.sleep(scene.chance.uniform(0, 2))
    kill(scene)
    scene.supervisor.foreman.popen.wait()
    time.sleep(0.1)  # so that the supervisor notes its end, which lies within the stop
    note("continued")


SURVIVED: list[Fault] = [
    stop_and_go_on,
    stop_an_enqueuer,
    kill_an_enqueuer,
    kill_the_fork_server,
    lock_the_database,
    read_for_long,
    delete_the_wakeup_file,
    fill_the_disk,
    step_the_clock,
]
DEADLY: list[Fault] = [
    kill,
    kill,
    kill_again_and_again,
    terminate,
    terminate_twice,
    kill_while_locked,
    terminate_while_locked,
    kill_while_full,
    kill_while_stopped,
]
NEED_SMALL_DISK = (fill_the_disk, kill_while_full)
