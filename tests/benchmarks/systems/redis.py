"""The common part of the queues on Redis: a server for each directory, which keeps nothing on disk."""

import socket
import time
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

from .base import EVERYTHING, System


class OnRedis(System):
    """Has a server for each directory; a file there contains its address."""

    store = "Redis"

    def __init__(self, name: str, title: str, measured: frozenset[str] = EVERYTHING) -> None:
        super().__init__(name, title, measured)
        self._servers: dict[Path, ExitStack] = {}

    def open(self, directory: Path, template: Path | None) -> None:
        from tests.servers import redis_server

        self._servers[directory] = server = ExitStack()
        address = server.enter_context(redis_server(directory))
        (directory / "address").write_text(address)
        while self._ask(directory, "PING") != "+PONG":  # it reads the copied data
            time.sleep(0.01)

    def rest(self, directory: Path) -> None:
        assert self._ask(directory, "SAVE") == "+OK"
        self.close(directory)

    def close(self, directory: Path) -> None:
        if server := self._servers.pop(directory, None):
            server.close()

    def address(self, directory: Path) -> str:
        return (directory / "address").read_text()

    def client(self, directory: Path) -> Any:
        return import_module("redis").Redis.from_url(self.address(directory))

    def _ask(self, directory: Path, command: str) -> str:
        port = int(self.address(directory).rpartition(":")[2].partition("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rw") as file:
            file.write(f"{command}\r\n")
            file.flush()
            return file.readline().strip()
