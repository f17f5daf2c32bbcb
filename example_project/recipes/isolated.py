"""Run a task in a process of its own, with limits on its time and its memory.

Try it: `python -m example_project.recipes isolated`
"""

import time

from snappea import AsyncResult, task
from snappea.errors import TaskFailed


@task(time_limit=1, max_memory="1G", result_ttl=60)
def convert(megabytes: int, seconds: float = 0) -> str:
    picture = bytearray(megabytes * 1024**2)
    time.sleep(seconds)
    return f"Converted {len(picture):,} bytes."


def outcome(result: AsyncResult) -> str:
    try:
        return str(result.get(timeout=20))
    except TaskFailed as error:
        return error.traceback.splitlines()[-1]


def show() -> None:
    print(f"Small: {outcome(convert.delay(10))}")
    print(f"Too large: {outcome(convert.delay(4096))}")
    print(f"Too slow: {outcome(convert.delay(10, seconds=30))}")
