"""The web for a test: users, and a server in this process for a browser."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application
from django.db import connections

from snappea.models import Task
from tests.site import PASSWORD as PASSWORD


def user(name: str = "boss", *permissions: str, **kinds: Any) -> User:
    """Return a user: of the staff, if `kinds` do not say otherwise, and with these permissions for tasks."""
    made = User.objects.create_user(name, password=PASSWORD, **({"is_staff": True} | kinds))
    if permissions:
        kind = ContentType.objects.get_for_model(Task)
        for permission in permissions:
            made.user_permissions.add(
                Permission.objects.get_or_create(
                    content_type=kind, codename=f"{permission}_task", defaults={"name": permission}
                )[0]
            )
    return made


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadedWSGIServer):
    daemon_threads = True

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            connections.close_all()


@contextmanager
def served() -> Iterator[str]:
    """Serve the site from this process, and yield its address."""
    server = _Server(("127.0.0.1", 0), _Quiet)
    server.set_app(StaticFilesHandler(get_wsgi_application()))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
