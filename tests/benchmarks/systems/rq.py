"""RQ: a pool of workers that do not fork for each job, the fastest according to its manual."""

from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

from .base import FAR, WORKERS, Function
from .redis import OnRedis


class RQ(OnRedis):
    """SimpleWorkers; no results are kept."""

    family = "rq"
    requirements = ("rq==3.0.0", "redis==8.1.0")
    workers = f"{WORKERS} processes"

    def worker(self) -> list[str]:
        worker = ("-w", "rq.worker.SimpleWorker", "-n", str(WORKERS), "-q")
        return ["-m", "tests.benchmarks.systems.rq", "worker-pool", *worker]

    def set_up(self, directory: Path) -> None:
        self.queue = import_module("rq").Queue(connection=self.client(directory))

    def task(self, function: Function) -> Any:
        return function

    def enqueuer(self, task: Any) -> Function:
        return partial(self.queue.enqueue, task, result_ttl=0)

    def schedule(self, task: Any) -> None:
        self.queue.enqueue_in(timedelta(seconds=FAR), task, result_ttl=0)

    def multiply(self, directory: Path, times: int) -> None:
        client = self.client(directory)
        ((job_id, due),) = client.zrange("rq:scheduled:default", 0, -1, withscores=True)
        job, pipeline = client.hgetall(f"rq:job:{job_id.decode()}"), client.pipeline(transaction=False)
        for _ in range(times - 1):
            copy = str(uuid4())
            pipeline.hset(f"rq:job:{copy}", mapping=job)
            pipeline.zadd("rq:scheduled:default", {copy: due})
        pipeline.execute()


if __name__ == "__main__":
    import os

    os.environ["RQ_REDIS_URL"] = (Path(os.environ["BENCHMARK_DIRECTORY"]) / "address").read_text()
    import_module("tests.benchmarks.tasks")  # once, before the pool starts its processes
    import_module("rq.cli").main()
