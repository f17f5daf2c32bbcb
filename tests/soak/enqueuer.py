"""Enqueues all kinds of tasks at random, until there is a file "enough": `python -m tests.soak.enqueuer`.

Before each call it notes what it is about to enqueue, with the times when it is due and expires, in seconds
of the site's clock; after the call it notes what was accepted, with the row's id.
"""

import os
import random
import sys
import time
from datetime import timedelta
from typing import Any

import django
from django.conf import settings

#: The longest rest between two calls, in seconds.
REST = 0.06
#: The longest delay of a scheduled task, in seconds.
HORIZON = 15.0


def main(who: str, seed: str) -> None:
    """Enqueue until the file \"enough\" exists."""
    django.setup()
    from tests.soak.tasks import KINDS

    chance = random.Random(seed)
    shares = [kind.share for kind in KINDS.values()]
    number, soak = 0, os.getppid()
    while not (settings.DIR / "enough").exists() and os.getppid() == soak:
        name = chance.choices(list(KINDS), shares)[0]
        kind = KINDS[name]
        numbers = range(number, number := number + kind.burst)
        keys = [f"{name}:{chance.randrange(kind.alike) if kind.alike else f'{who}-{n}'}" for n in numbers]
        # identical calls have all arguments in common
        seconds = kind.seconds if kind.alike else round(chance.random() * kind.seconds, 3)
        enqueue(kind.task, keys, seconds, chance.random() * HORIZON if name == "due" else None)
        time.sleep(chance.random() * REST)


def enqueue(task: Any, keys: list[str], seconds: float, wait: float | None) -> None:
    """Enqueue, in one transaction if there are several, and note it; or note that it was refused."""
    from django.db import close_old_connections

    from snappea.errors import EnqueueError
    from snappea.queue.clock import as_datetime, now
    from tests.playground.ledger import note

    here = as_datetime(now())
    eta = None if wait is None else here + timedelta(seconds=wait)
    expires = None if task.options.expires is None else here.timestamp() + task.options.expires
    for key in keys:
        note("try", key, eta.timestamp() if eta else "-", expires or "-")
    try:
        if len(keys) > 1:
            results = task.delay_many([(key, seconds) for key in keys])
        else:
            results = [task.apply_async((keys[0], seconds), eta=eta)]
    except EnqueueError as error:
        is_known = "It may be enqueued anyway" not in str(error)
        for key in keys:
            note("refused" if is_known else "unsure", key)
        close_old_connections()  # as at the end of a request
        return
    for key, result in zip(keys, results, strict=True):
        note("ack", key, result.id)


if __name__ == "__main__":
    main(*sys.argv[1:])
