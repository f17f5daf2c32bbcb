"""The faults on each kind of database: each is a function of the scene, and is over when it returns."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.clock import offset, set_clock
from tests.playground.ledger import note

from .ground import Fault, Scene

#: Stands for all Foremen in the ledger.
ALL = 0


@contextmanager
def away(number: int) -> Iterator[None]:
    """Note that a Foreman, or all of them, cannot work or write meanwhile."""
    note("away", number)
    try:
        yield
    finally:
        note("back", number)


# faults that the Foreman survives


def stop_and_go_on(scene: Scene) -> None:
    """Stop a Foreman's process for some seconds."""
    post = scene.pick()
    with away(post.number):
        post.process.popen.send_signal(signal.SIGSTOP)
        time.sleep(scene.ground.absence(scene.chance))
        post.process.popen.send_signal(signal.SIGCONT)


def stop_an_enqueuer(scene: Scene) -> None:
    """Stop an enqueuer, perhaps while it holds locks."""
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
    with scene.ground.locked(scene):
        time.sleep(scene.chance.uniform(0.5, 8))


def kill_the_fork_server(scene: Scene) -> None:
    """Kill the fork server. The next isolated task starts another."""
    post = scene.pick()
    number, threads = post.number, Path(f"/proc/{post.process.popen.pid}/task")
    with contextlib.suppress(OSError, IndexError):  # there may be none at the moment
        child = "".join(path.read_text() for path in threads.glob("*/children")).split()[0]
        note("forkless", "from", number)
        os.kill(int(child), signal.SIGKILL)
        note("forkless", "since", number)


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


# faults that end a Foreman


def kill(scene: Scene) -> None:
    """Kill a Foreman with SIGKILL."""
    scene.pick().end(signal.SIGKILL, -signal.SIGKILL)


def kill_again_and_again(scene: Scene) -> None:
    """Kill a Foreman, and the next ones while they start."""
    for _ in range(scene.chance.randrange(2, 5)):
        kill(scene)
        time.sleep(scene.chance.uniform(0.3, 2))


def terminate(scene: Scene) -> None:
    """Ask a Foreman to stop."""
    scene.pick().terminate()


def terminate_twice(scene: Scene) -> None:
    """Ask a Foreman to stop, and then to stop at once."""
    post = scene.pick()
    post.terminate()
    time.sleep(scene.chance.uniform(0, 0.3))
    post.terminate()


def kill_while_locked(scene: Scene) -> None:
    """Kill a Foreman while it, and the next one, wait for the write lock."""
    with scene.ground.locked(scene):
        time.sleep(scene.chance.uniform(0, 1))
        kill(scene)
        time.sleep(scene.chance.uniform(0, 7))


def terminate_while_locked(scene: Scene) -> None:
    """Ask a Foreman to stop while it cannot write."""
    with scene.ground.locked(scene):
        time.sleep(scene.chance.uniform(0, 1))
        terminate(scene)
        time.sleep(scene.chance.uniform(0, 7))


def kill_while_stopped(scene: Scene) -> None:
    """Kill a Foreman while it is stopped."""
    post = scene.pick()
    process = post.process
    with away(post.number):
        process.popen.send_signal(signal.SIGSTOP)
        time.sleep(scene.chance.uniform(0, 2))
        post.end(signal.SIGKILL, -signal.SIGKILL)
        process.popen.wait()
        time.sleep(0.1)  # so that the supervisor notes its end, which lies within the stop


SURVIVED: list[Fault] = [
    stop_and_go_on,
    stop_an_enqueuer,
    kill_an_enqueuer,
    kill_the_fork_server,
    lock_the_database,
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
    kill_while_stopped,
]
