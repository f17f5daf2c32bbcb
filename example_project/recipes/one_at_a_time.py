"""Run a task one at a time, or one at a time for each customer.

Try it: `python -m example_project.recipes one_at_a_time`
"""

import time
from itertools import pairwise

from snappea import task


@task(max_concurrency=1, result_ttl=60)
def rebuild_index() -> list[float]:
    started = time.time()
    time.sleep(0.1)
    return [started, time.time()]


def customer(customer_id: int, month: str) -> int:
    return customer_id


@task(max_concurrency=1, concurrency_key=customer)
def bill(customer_id: int, month: str) -> None:
    """Run for many customers at once, but never twice at once for the same one."""


def show() -> None:
    results = [rebuild_index.delay() for _ in range(3)]
    runs = sorted(result.get(timeout=10) for result in results)
    overlaps = sum(second[0] < first[1] for first, second in pairwise(runs))
    print(f"{len(runs)} runs, {overlaps} overlaps")
    bill.delay_many([(1, "2030-01"), (1, "2030-02"), (2, "2030-01")])
