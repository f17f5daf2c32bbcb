"""Celery on Redis, with its pool of threads; fetches more ahead, as its manual says for short tasks."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

from .base import FAR, WORKERS, Function
from .redis import OnRedis


class Celery(OnRedis):
    """One worker; no results are kept."""

    family = "celery"
    requirements = ("celery[redis]==5.7.0",)

    def worker(self) -> list[str]:
        alone = ("--without-gossip", "--without-mingle", "--without-heartbeat")
        pool = ("-P", "threads", "-c", str(WORKERS), "--prefetch-multiplier", "64", "-l", "ERROR")
        return ["-m", "celery", "-A", "tests.benchmarks.tasks", "worker", *pool, *alone]

    def set_up(self, directory: Path) -> None:
        self.app = import_module("celery").Celery("benchmarks", broker=self.address(directory))
        self.app.conf.task_ignore_result = True

    def task(self, function: Function) -> Any:
        return self.app.task(function)

    def schedule(self, task: Any) -> None:
        task.apply_async(countdown=FAR)

    def multiply(self, directory: Path, times: int) -> None:
        client = self.client(directory)
        message = client.lindex("celery", 0)
        tag = json.loads(message)["properties"]["delivery_tag"].encode()
        copies = [message.replace(tag, str(uuid4()).encode()) for _ in range(times - 1)]
        client.lpush("celery", *copies)
