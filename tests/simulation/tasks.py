"""The tasks: one for each kind of decision. None of them is ever called."""

from snappea import task


@task
def plain(key: str) -> None: ...


@task(queue="mail")
def mail(key: str) -> None: ...


@task(queue="urgent", priority=50)
def urgent(key: str) -> None: ...


@task(acks_late=True)
def late(key: str) -> None: ...


@task(result_ttl=90)
def kept(key: str) -> str:
    return key


@task
async def on_loop(key: str) -> None: ...


@task(max_concurrency=1)
def alone(key: str) -> None: ...


@task(max_concurrency=2, concurrency_key=lambda key: key, acks_late=True)
def in_pairs(key: str) -> None: ...


@task(max_concurrency=1, concurrency_key=lambda key: key, queue="mail")
async def on_loop_alone(key: str) -> None: ...


@task(rate_limit="2/s burst 2", concurrency_key=lambda key: key)
def paced(key: str) -> None: ...


@task(max_concurrency=1, on_limit="discard", concurrency_key=lambda key: key)
def at_once(key: str) -> None: ...


@task(unique=True)
def once_waiting(key: str) -> None: ...


@task(unique="running", acks_late=True)
def once(key: str) -> None: ...


@task(unique=lambda key: key, on_conflict="replace", max_concurrency=1)
def latest(key: str) -> None: ...


@task(fair_by=lambda key: key)
def fair(key: str) -> None: ...


@task(fair_by=lambda key: key, max_concurrency=2)
def fair_pair(key: str) -> None: ...


@task(expires=3)
def fleeting(key: str) -> None: ...


@task(every=45)
def ticking() -> None: ...


@task
def called_back(token: str) -> None: ...


KINDS = (
    *(plain, mail, urgent, late, kept, on_loop, alone, in_pairs, on_loop_alone, paced, at_once),
    *(once_waiting, once, latest, fair, fair_pair, fleeting),
)
#: Those with limits that can be changed.
LIMITED = (alone, in_pairs, on_loop_alone, fair_pair)
QUEUES = ("default", "mail", "urgent")
NAMES = [kind.name for kind in KINDS]
