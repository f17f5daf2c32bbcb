"""WakaQ on Redis: a process for each worker."""

from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from .base import FAR, WORKERS, Function
from .redis import OnRedis


class WakaQ(OnRedis):
    """One worker with its children, and no log."""

    family = "wakaq"
    requirements = ("wakaq==4.0.4", "redis==8.1.0")
    workers = f"{WORKERS} processes"

    def worker(self) -> list[str]:
        return [self.script("wakaq-worker"), "--app", "tests.benchmarks.tasks.app"]

    def set_up(self, directory: Path) -> None:
        self.app = import_module("wakaq").WakaQ(
            queues=["default"],
            port=urlparse(self.address(directory)).port,
            concurrency=WORKERS,
            worker_log_level=40,
        )

    def task(self, function: Function) -> Any:
        return self.app.task(function)

    def schedule(self, task: Any) -> None:
        task.delay(eta=timedelta(seconds=FAR))

    def multiply(self, directory: Path, times: int) -> None:
        client = self.client(directory)
        (key,) = client.keys("*eta*")
        ((message, due),) = client.zrange(key, 0, -1, withscores=True)
        client.zadd(key, {message.replace(b"[]", b"[%d]" % number): due for number in range(1, times)})
