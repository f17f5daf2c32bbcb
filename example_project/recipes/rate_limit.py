"""Start a task at most ten times a second, as the API it calls demands.

Try it: `python -m example_project.recipes rate_limit`
"""

import time

from snappea import task


@task(rate_limit="10/s", result_ttl=60)
def call_api(number: int) -> float:
    return time.monotonic()


def show() -> None:
    results = call_api.delay_many([(number,) for number in range(5)])
    starts = sorted(result.get(timeout=10) for result in results)
    print(f"{len(starts)} starts in {starts[-1] - starts[0]:.1f} s")
