"""What other processes do: web requests that enqueue, and people and scripts that change things."""

import random
from collections.abc import Callable
from typing import Any

from snappea import batch, limits
from snappea.models import Task
from snappea.queue import operations

from . import tasks
from .events import Event

KEYS = ("a", "b", "c")
#: How often each verb is chosen.
WEIGHTS = {
    "enqueue": 50,
    "batch": 4,
    "requeue": 14,
    "cancel": 6,
    "terminate": 4,
    "delete": 5,
    "pause": 3,
    "resume": 4,
    "limits": 3,
    "unlimit": 2,
    "kill": 3,
    "stop": 1,
    "hurry": 1,
}
#: Those that happen to the Foreman itself.
BLOWS = ("kill", "stop", "hurry")


def script(seed: str, bursts: int) -> list[Event]:
    """Return the events of a life: bursts, and long rests between them."""
    chance = random.Random(f"{seed}/script")
    events, at = [], 1.0
    verbs, weights = list(WEIGHTS), list(WEIGHTS.values())
    for _ in range(bursts):
        length, count = chance.choice((0.01, 0.1, 1, 5, 20)), chance.randint(5, 40)
        for verb in chance.choices(verbs, weights, k=count):
            who = "foreman" if verb in BLOWS else chance.choice(("web", "worker", "admin"))
            events.append(Event(at + chance.random() * length, who, verb, chance.randrange(10**6)))
        at += length + min(1500.0, chance.expovariate(1 / 200))
    return sorted(events, key=lambda event: event.at)


def _chosen(chance: random.Random) -> Any:
    """Return some tasks."""
    found = Task.objects.using("snappea")
    dice = chance.random()
    if dice < 0.3:
        return found.filter(task_name=chance.choice(tasks.NAMES))
    if dice < 0.5:
        return found.filter(queue=chance.choice(tasks.QUEUES))
    return found.all()


def enqueue(chance: random.Random) -> None:
    kind, key = chance.choice(tasks.KINDS), chance.choice(KEYS)
    dice = chance.random()
    if dice < 0.6:
        kind.delay(key)
    elif dice < 0.75:
        kind.apply_async((key,), countdown=chance.choice((0, 0.001, 0.2, 3, 60)))
    elif dice < 0.85:
        kind.apply_async((key,), priority=chance.randint(-2, 2), queue=chance.choice(tasks.QUEUES))
    elif dice < 0.9:
        kind.apply_async((key,), expires=chance.choice((0.01, 0.5, 20)))
    else:
        kind.delay_many([(chance.choice(KEYS),) for _ in range(chance.randint(1, 12))])


def enqueue_batch(chance: random.Random, token: str) -> None:
    callback = tasks.called_back
    done = callback.s(f"{token}-complete")
    with batch(on_complete=done, on_success=callback.s(f"{token}-success")):
        for _ in range(chance.randint(1, 4)):
            chance.choice((tasks.plain, tasks.late, tasks.alone, tasks.kept, tasks.fleeting)).delay("a")


def change_limits(chance: random.Random) -> None:
    kind = chance.choice(tasks.LIMITED)
    key = chance.choice((None, *KEYS)) if kind.options.concurrency_key else None
    limits.set(kind, key=key, max_concurrency=chance.choice((0, 1, 2, 3, None)))


def reset_limits(chance: random.Random) -> None:
    kind = chance.choice(tasks.LIMITED)
    key = chance.choice((None, *KEYS)) if kind.options.concurrency_key else None
    limits.reset(kind, key=key)


#: What the processes do, by verb; except what the life itself has to know.
ACTS: dict[str, Callable[[random.Random], Any]] = {
    "enqueue": enqueue,
    "requeue": lambda chance: operations.requeue(_chosen(chance), chance.choice((None, None, 0, 1, 30))),
    "cancel": lambda chance: operations.cancel(_chosen(chance)),
    "terminate": lambda chance: operations.terminate(_chosen(chance)),
    "delete": lambda chance: operations.delete(_chosen(chance)),
    "limits": change_limits,
    "unlimit": reset_limits,
}
