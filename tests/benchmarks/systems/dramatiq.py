"""dramatiq on Redis, with threads."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

from .base import FAR, WORKERS, Function
from .redis import OnRedis


class Dramatiq(OnRedis):
    """One process; with the default middleware."""

    family = "dramatiq"
    requirements = ("dramatiq[redis]==2.2.1", "redis==8.1.0")

    def worker(self) -> list[str]:
        size = ("--processes", "1", "--threads", str(WORKERS))
        return ["-m", "dramatiq", "tests.benchmarks.tasks", *size, "--skip-logging"]

    def set_up(self, directory: Path) -> None:
        broker = import_module("dramatiq.brokers.redis").RedisBroker(url=self.address(directory))
        import_module("dramatiq").set_broker(broker)

    def task(self, function: Function) -> Any:
        return import_module("dramatiq").actor(function)

    def enqueuer(self, task: Any) -> Function:
        enqueue: Function = task.send
        return enqueue

    def schedule(self, task: Any) -> None:
        task.send_with_options(delay=FAR * 1000)

    def multiply(self, directory: Path, times: int) -> None:
        client = self.client(directory)
        queue, messages = "dramatiq:default.DQ", "dramatiq:default.DQ.msgs"
        message = json.loads(client.hget(messages, client.lindex(queue, 0)))
        copies = {}
        for _ in range(times - 1):
            message["message_id"] = message["options"]["redis_message_id"] = copy = str(uuid4())
            copies[copy] = json.dumps(message)
        client.hset(messages, mapping=copies)
        client.rpush(queue, *copies)
