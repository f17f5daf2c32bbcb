"""Stop a task that takes too long, and let it clean up first.

Try it: `python -m example_project.recipes time_limit`
"""

import time

from snappea import SoftTimeLimitExceeded, task


@task(soft_time_limit=0.5, result_ttl=60)
def crawl(pages: int) -> str:
    done = 0
    try:
        while done < pages:
            time.sleep(0.01)
            done += 1
    except SoftTimeLimitExceeded:
        return f"Stopped after some of {pages} pages." if done else "Stopped at once."
    return f"All {pages} pages."


def show() -> None:
    print(crawl.delay(5).get(timeout=10))
    print(crawl.delay(1_000_000).get(timeout=10))
