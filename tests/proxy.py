"""A network between a client and a server, which can go silent: no end of a connection learns of it."""

import contextlib
import selectors
import socket
import threading
from types import TracebackType

#: How soon connections that have lost data end when the silence is over, in seconds.
SOON = 0.1


class Proxy:
    """Forwards connections to a port of this machine, which may change.

    While `is_silent`, it swallows what comes. Connections that have lost something end after that.
    """

    def __init__(self, target: int) -> None:
        self.is_silent = False
        #: The port where new connections go.
        self.target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._torn: list[tuple[socket.socket, socket.socket]] = []
        self._is_open = True
        self._thread = threading.Thread(target=self._forward, daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        socket.create_connection(("127.0.0.1", self.port)).close()  # wakes the thread
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _forward(self) -> None:
        while self._is_open:
            for key, _events in self._selector.select(SOON if self._torn else None):
                if key.fileobj is self._server:
                    self._accept()
                else:
                    self._pass_on(key.fileobj, key.data)  # type: ignore[arg-type]
            if not self.is_silent:
                while self._torn:
                    self._end(*self._torn.pop())

    def _accept(self) -> None:
        client, _address = self._server.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:  # the server is away
            client.close()
            return
        self._selector.register(client, selectors.EVENT_READ, server)
        self._selector.register(server, selectors.EVENT_READ, client)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            data = source.recv(65536)
            if data and not self.is_silent:
                target.sendall(data)
        except OSError:
            data = b""
        if self.is_silent:
            self._torn.append((source, target))
        if not data:
            self._selector.unregister(source)
            if not self.is_silent:
                with contextlib.suppress(OSError):  # it is closed already
                    target.shutdown(socket.SHUT_WR)

    def _end(self, *ends: socket.socket) -> None:
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # its next read finds the end
