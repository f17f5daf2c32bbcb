"""Run `async def` tasks, hundreds at a time, on one event loop.

Try it: `python -m example_project.recipes asynchronous`
"""

import asyncio
import time

from snappea import task


@task(result_ttl=60)
async def call_webhook(number: int) -> int:
    await asyncio.sleep(0.5)  # waits for a slow server
    return number


async def enqueue() -> int:
    """Enqueue from asynchronous code, such as an async view."""
    result = await call_webhook.adelay(0)
    return int(str(result.id))


def show() -> None:
    print(f"Enqueued by async code: {asyncio.run(enqueue()) > 0}")
    started = time.monotonic()
    results = call_webhook.delay_many([(number,) for number in range(50)])
    total = sum(result.get(timeout=20) for result in results)
    print(f"50 calls of 0.5 s, sum {total}, all within 10 s: {time.monotonic() - started < 10}")
