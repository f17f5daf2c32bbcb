"""Members of batches, and what follows them."""

from snappea import Batch, current_task, task

from .ledger import note


@task
def work(key: str | int) -> None:
    """Be a member."""
    note("worked", key)


@task
def noted(name: str) -> None:
    """Follow a batch."""
    note("noted", name)


@task
def close() -> None:
    """Follow a batch, without arguments."""
    note("closed")


@task
def add_two() -> None:
    """Add two members to the batch that it is in."""
    assert current_task.batch_id
    with Batch(current_task.batch_id):
        work.delay(1)
        work.delay(2)


@task
def grow(text: str, more: str) -> str:
    """Be a call of a chain, and return a text that grows."""
    note("grown", text + more)
    return text + more


@task(acks_late=True)
def grow_late(text: str, more: str) -> str:
    """Do the same, perhaps more than once."""
    note("grown", text + more)
    return text + more


@task
async def grow_on_loop(text: str, more: str) -> str:
    """Do the same on the event loop."""
    note("grown", text + more)
    return text + more


@task(isolate=True)
def grow_isolated(text: str, more: str) -> str:
    """Do the same in a process of its own."""
    note("grown", text + more)
    return text + more
