"""What real Foremen send to systemd, which a socket plays."""

import os
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from snappea.foreman import systemd
from tests.playground.tasks import nap, record, wait_for
from tests.site import Site, wait_until

pytestmark = pytest.mark.long


class Ear:
    """The socket that systemd would listen on."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.heard: list[str] = []

    def listen(self, seconds: float = 0.0) -> list[str]:
        """Return all words so far, and those of the next few seconds."""
        end = time.monotonic() + seconds
        while True:
            self.socket.settimeout(max(end - time.monotonic(), 0.001))
            try:
                self.heard += self.socket.recv(4096).decode().splitlines()
            except (TimeoutError, BlockingIOError):
                return self.heard

    def wait_for(self, word: str, count: int = 1) -> None:
        wait_until(lambda: self.listen().count(word) >= count, f"{word} in {self.heard}")


@pytest.fixture(params=["path", "abstract"])
def ear(request: pytest.FixtureRequest, site: Site) -> Iterator[Ear]:
    names = {"path": str(site.directory / "notify"), "abstract": f"@snappea-{os.getpid()}-{id(site)}"}
    address = site.variables["NOTIFY_SOCKET"] = names[request.param]
    ear = Ear(address)
    yield ear
    ear.socket.close()


path_only = pytest.mark.parametrize("ear", ["path"], indirect=True)


def test_ready_and_stopping(site: Site, ear: Ear) -> None:
    assert ear.listen(0.2) == []
    foreman = site.manage("runsnappea")
    ear.wait_for(systemd.READY)
    record.delay("x")
    wait_until(lambda: site.ledger.count("end", "x"))
    wait_for.delay("x", str(site.directory / "go"))
    wait_until(lambda: site.ledger.count("start", "x") == 2)
    foreman.send(signal.SIGTERM)
    ear.wait_for(systemd.STOPPING)
    (site.directory / "go").touch()
    assert foreman.wait() == 0
    assert ear.listen() == [systemd.READY, systemd.STOPPING], "and nothing of a watchdog that nobody keeps"


@path_only
def test_nobody_says_ready_who_cannot_start(site: Site, ear: Ear) -> None:
    site.foreman()
    ear.wait_for(systemd.READY)
    assert site.manage("runsnappea").wait() == 1
    assert ear.listen(0.2) == [systemd.READY]


@path_only
def test_the_watchdog_is_reassured_while_the_loop_turns(site: Site, ear: Ear) -> None:
    site.variables["WATCHDOG_USEC"] = "3000000"
    foreman = site.manage("runsnappea")
    ear.wait_for(systemd.ALIVE, 3)
    foreman.send(signal.SIGSTOP)
    ear.listen(0.2)
    before = ear.heard.count(systemd.ALIVE)
    assert ear.listen(2.5).count(systemd.ALIVE) == before, "it hangs"
    foreman.send(signal.SIGCONT)
    ear.wait_for(systemd.ALIVE, before + 1)
    assert foreman.stop() == 0


@path_only
def test_the_watchdog_is_reassured_while_the_database_refuses(site: Site, ear: Ear) -> None:
    """A restart would not help."""
    site.variables["WATCHDOG_USEC"] = "3000000"
    foreman = site.manage("runsnappea")
    ear.wait_for(systemd.ALIVE)
    with closing(sqlite3.connect(site.database, isolation_level=None)) as other:
        nap.delay("x", 0.5)
        wait_until(lambda: site.ledger.count("start", "x"))
        other.execute("BEGIN IMMEDIATE")
        foreman.wait_for_output("The round failed.*locked")
        before = ear.listen().count(systemd.ALIVE)
        ear.wait_for(systemd.ALIVE, before + 3)
        other.execute("COMMIT")
    site.wait_until_empty()


@path_only
def test_the_watchdog_is_reassured_while_it_stops(site: Site, ear: Ear) -> None:
    site.variables["WATCHDOG_USEC"] = "3000000"
    foreman = site.manage("runsnappea")
    wait_for.delay("x", str(site.directory / "go"))
    wait_until(lambda: site.ledger.count("start", "x"))
    foreman.send(signal.SIGTERM)
    ear.wait_for(systemd.STOPPING)
    ear.wait_for(systemd.ALIVE, ear.heard.count(systemd.ALIVE) + 2)
    (site.directory / "go").touch()
    assert foreman.wait() == 0


@path_only
def test_the_watchdog_of_another_process(site: Site, ear: Ear) -> None:
    site.variables |= {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}
    site.manage("runsnappea")
    ear.wait_for(systemd.READY)
    assert ear.listen(1.5) == [systemd.READY]


@path_only
def test_a_new_start_under_the_same_pid_is_no_stop(site: Site, ear: Ear) -> None:
    foreman = site.manage("runsnappea", MAX_TASKS=1)
    ear.wait_for(systemd.READY)
    record.delay("x")
    ear.wait_for(systemd.READY, 2)
    assert systemd.STOPPING not in ear.heard and foreman.popen.poll() is None
    assert foreman.stop() == 0
    assert ear.listen()[-1] == systemd.STOPPING


@path_only
def test_a_foreman_that_stops_by_itself_says_so(site: Site, ear: Ear) -> None:
    foreman = site.manage("runsnappea")
    ear.wait_for(systemd.READY)
    site.database.unlink()
    ear.wait_for(systemd.STOPPING)
    assert foreman.wait() == 1


@path_only
def test_a_systemd_that_is_gone_harms_nobody(site: Site, ear: Ear) -> None:
    site.variables["WATCHDOG_USEC"] = "3000000"
    ear.socket.close()
    foreman = site.foreman()
    foreman.wait_for_output("Could not send READY=1 WATCHDOG=1 to systemd")
    record.delay("x")
    wait_until(lambda: site.ledger.count("end", "x"))
    assert foreman.stop() == 0


@path_only
def test_a_systemd_that_does_not_listen_harms_nobody(site: Site, ear: Ear) -> None:
    """Its buffer fills, and the Foreman does not wait."""
    site.variables["WATCHDOG_USEC"] = "3000000"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full:
        full.setblocking(False)
        with pytest.raises(BlockingIOError):
            for _ in range(100_000):
                full.sendto(b"X=1", site.variables["NOTIFY_SOCKET"])
    foreman = site.foreman()
    record.delay("x")
    wait_until(lambda: site.ledger.count("end", "x"))
    assert foreman.stop() == 0


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1234"])
def test_what_is_no_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert systemd.notify(systemd.READY) is False


def test_one_datagram(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    ear = Ear(str(tmp_path / "notify"))
    assert systemd.notify("A=1", "B=2") is True
    assert ear.socket.recv(100) == b"A=1\nB=2"
    ear.socket.close()
