"""The soak on PostgreSQL: several Foremen, each with a network of its own, and a server with a standby."""

import json
import random
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.proxy import Proxy
from tests.servers import Postgres
from tests.site import PostgresSite, Process

from . import faults
from .faults import ALL, away
from .ground import Ground, Scene

#: FOREMAN_TIMEOUT in seconds.
TIMEOUT = 4.0
DATABASE = "soak"
#: For how long the server waits for the next statement of a frozen Foreman's transaction, in seconds.
HELD = 0.05
_IN_TRANSACTION = f"""
    SELECT 1 FROM pg_stat_activity WHERE application_name = ? AND state LIKE 'idle in transaction%%'
        AND clock_timestamp() - state_change > interval '{HELD} s'"""
_EXTENSION = "CREATE EXTENSION IF NOT EXISTS amcheck"
_CHECK = """
    SELECT bt_index_check(indexrelid, true) FROM pg_index JOIN pg_class ON oid = indexrelid
    WHERE relname LIKE 'snappea%%' AND relam = (SELECT oid FROM pg_am WHERE amname = 'btree')"""
_END_CONNECTIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ? AND pid <> pg_backend_pid()"
)


class PostgresGround(Ground):
    """The queue on a server with a standby that each commit waits for. Proxies lead to it."""

    foremen = 3
    workers = 6
    dead_after = TIMEOUT / 2  # its last heartbeat is older than its absence
    unwritten = 1.0 + 2.0  # a round may wait for another Foreman's lock
    lateness = 10.0 + 3 * TIMEOUT
    shares_rates = True
    unbegun_per_death = workers  # those that were just claimed
    excuses = ("OperationalError", "InterfaceError", "its Foreman died or was cut off")
    expected = (
        "The round failed: ",
        "Reconnected to ",
        "The connection ",
        "left ",
        "Could not write the final states",
        "finished tasks had been changed by another process",
        "cannot start: ",
        "Cannot notify",
        "The statistics of a minute could not be written",
        "The signal task_finished could not be sent",
    )

    def __init__(self, directory: Path) -> None:
        self._open = ExitStack()
        self.server = Postgres()
        self.server.create("migrated")
        self.site: PostgresSite = PostgresSite(directory, self.server, DATABASE)
        self.standby = self.server.replicate()
        self.proxies = [self._open.enter_context(Proxy(self.server.port)) for _ in range(self.foremen + 1)]
        self.site.settings["FOREMAN_TIMEOUT"] = TIMEOUT
        self.site.variables |= self.variables(self.foremen)  # enqueuers have the last one
        self.first = [fail_over, freeze_in_a_transaction, cut_off]
        self.survived = [*faults.SURVIVED, freeze_in_a_transaction, cut_off, cut_off_enqueuers]
        self.survived += [fail_over, restart_the_server, hold_the_standby, end_connections]
        self.deadly = [*faults.DEADLY, kill_without_server, kill_all]

    def variables(self, post: int) -> Mapping[str, str]:
        options = {"application_name": f"post-{post}", "connect_timeout": 5}
        settings: dict[str, Any] = self.server.settings(DATABASE)
        settings |= {"PORT": str(self.proxies[post].port), "OPTIONS": options}
        return {"SNAPPEA_TEST_QUEUE": json.dumps(settings)}

    def absence(self, chance: random.Random) -> float:
        return chance.choice((chance.uniform(0.2, TIMEOUT / 3), 2 * TIMEOUT))

    def is_at_work(self, process: Process) -> bool:
        return bool(self.site.sql("SELECT 1 FROM snappea_presence WHERE pid = ?", process.pid))

    @contextmanager
    def locked(self, scene: Scene) -> Iterator[None]:
        with scene.supervisor.tolerating(1), away(ALL), self.server.connect(DATABASE) as connection:
            connection.execute("BEGIN")
            connection.execute("LOCK TABLE snappea_task IN EXCLUSIVE MODE")
            yield
            connection.execute("ROLLBACK")

    @contextmanager
    def stopped(self, scene: Scene, how: int) -> Iterator[None]:
        """Stop the server, and yield; all go to the server that is there at the end of the block."""
        with scene.supervisor.tolerating(1), away(ALL):
            self.server.stop(how)
            yield
            for proxy in self.proxies:
                proxy.target = self.server.port

    def fail_over(self) -> None:
        """Make the standby the server."""
        self.server.close()
        self.site.server = self.server = self.standby
        self.server.promote()

    def unrest(self) -> str:
        found = self.site.sql("SELECT pid FROM snappea_presence")
        return f"{len(found)} Foremen instead of {self.foremen}" if len(found) != self.foremen else ""

    def damage(self) -> list[str]:
        self.site.sql(_EXTENSION)
        try:
            self.site.sql(_CHECK)
        except Exception as error:
            return [f"amcheck: {error}"]
        left = self.site.sql("SELECT host, pid FROM snappea_presence")
        return [f"Foremen that have left are in the table: {left}"] if left else []

    def close(self) -> None:
        self._open.close()
        self.standby.close()
        self.server.close()


def ground_of(scene: Scene) -> PostgresGround:
    """Return the ground, which has a server."""
    assert isinstance(scene.ground, PostgresGround)
    return scene.ground


def freeze_in_a_transaction(scene: Scene) -> None:
    """Stop a Foreman in the middle of a transaction, which has locks, for twice FOREMAN_TIMEOUT."""
    index = scene.chance.randrange(len(scene.supervisor.posts))
    post = scene.supervisor.posts[index]
    give_up = time.monotonic() + TIMEOUT
    while time.monotonic() < give_up:
        with away(post.number):
            post.process.popen.send_signal(signal.SIGSTOP)
            time.sleep(2 * HELD)
            is_within = bool(scene.site.sql(_IN_TRANSACTION, f"post-{index}"))
            time.sleep(2 * TIMEOUT if is_within else 0)
            post.process.popen.send_signal(signal.SIGCONT)
        if is_within:
            return
        time.sleep(scene.chance.uniform(0, 0.02))


def cut_off(scene: Scene) -> None:
    """Let the network of a Foreman be silent."""
    index = scene.chance.randrange(len(scene.supervisor.posts))
    proxy = ground_of(scene).proxies[index]
    with scene.supervisor.tolerating(1), away(scene.supervisor.posts[index].number):
        proxy.is_silent = True
        time.sleep(scene.ground.absence(scene.chance))
        proxy.is_silent = False


def cut_off_enqueuers(scene: Scene) -> None:
    """Let the network of the enqueuers be silent."""
    proxy = ground_of(scene).proxies[-1]
    proxy.is_silent = True
    time.sleep(scene.chance.uniform(0.2, TIMEOUT))
    proxy.is_silent = False


def restart_the_server(scene: Scene) -> None:
    """Stop the server, in good order or as in a crash, and start it again."""
    ground = ground_of(scene)
    with ground.stopped(scene, scene.chance.choice((signal.SIGINT, signal.SIGQUIT))):
        time.sleep(scene.chance.choice((0.0, scene.chance.uniform(0, 2 * TIMEOUT))))
        ground.server.start()


def fail_over(scene: Scene) -> None:
    """End the server as in a crash, for good: its standby takes over, and gets a standby of its own."""
    ground = ground_of(scene)
    with ground.stopped(scene, signal.SIGQUIT):
        time.sleep(scene.chance.choice((0.0, scene.chance.uniform(0, 2 * TIMEOUT))))
        ground.fail_over()
    ground.standby = ground.server.replicate()


def hold_the_standby(scene: Scene) -> None:
    """Let the standby show no further commits, so that no commit returns."""
    ground = ground_of(scene)
    with ground.standby.connect(DATABASE) as standby, scene.supervisor.tolerating(1), away(ALL):
        standby.execute("SELECT pg_wal_replay_pause()")
        time.sleep(scene.ground.absence(scene.chance))
        standby.execute("SELECT pg_wal_replay_resume()")


def end_connections(scene: Scene) -> None:
    """End all connections."""
    with scene.supervisor.tolerating(1), away(ALL):
        scene.site.sql(_END_CONNECTIONS, DATABASE)


def kill_without_server(scene: Scene) -> None:
    """Kill a Foreman while the server is away, and ask another to stop."""
    ground = ground_of(scene)
    with ground.stopped(scene, signal.SIGQUIT):
        time.sleep(scene.chance.uniform(0, 1))
        faults.kill(scene)
        faults.terminate(scene)
        time.sleep(scene.chance.uniform(0, TIMEOUT))
        ground.server.start()


def kill_all(scene: Scene) -> None:
    """Kill all Foremen at once."""
    for post in scene.supervisor.posts:
        post.end(signal.SIGKILL, -signal.SIGKILL)
