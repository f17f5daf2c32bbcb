"""A network between a client and a server, which can go silent: no end of a connection learns of it."""

import selectors
import socket
import threading
from types import TracebackType


class Proxy:
    """Forwards connections to a port of this machine. While `is_silent`, it swallows what comes."""

    def __init__(self, port: int) -> None:
        self.is_silent = False
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
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
            for key, _events in self._selector.select():
                if key.fileobj is self._server:
                    self._accept()
                else:
                    self._pass_on(key.fileobj, key.data)  # type: ignore[arg-type]

    def _accept(self) -> None:
        client, _address = self._server.accept()
        server = socket.create_connection(("127.0.0.1", self._target))
        self._selector.register(client, selectors.EVENT_READ, server)
        self._selector.register(server, selectors.EVENT_READ, client)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            data = source.recv(65536)
            if data and not self.is_silent:
                target.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(source)
            if not self.is_silent:
                try:
                    target.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # it is closed already
