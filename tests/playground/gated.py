"""Tasks with limits, and tasks that may be there only once; some of them end badly."""

import time
from enum import StrEnum

from django.conf import settings

from snappea import Retry, current_task, task

from .ledger import note


class Color(StrEnum):
    """A default that is text as well."""

    RED = "red"


def _behave(key: str, how: str, seconds: float = 0.0) -> None:
    """Note the start and the end, and in between do as is said."""
    note("start", key)
    time.sleep(seconds)
    while "wait" in how and not (settings.DIR / "go").exists():
        time.sleep(0.005)
    if how == "fail" or (how == "broken" and (settings.DIR / "broken").exists()):
        raise ValueError(f"no luck with {key}")
    if "retry" in how and current_task.attempt == 1:
        raise Retry(countdown=0.05)
    note("end", key)


@task(queue="mail")
def mail(key: str) -> None:
    """Belong to a queue."""
    note("start", key)
    note("end", key)


@task(max_concurrency=1)
def alone(key: str, how: str = "", seconds: float = 0.0) -> None:
    """Run alone."""
    _behave(key, how, seconds)


@task(max_concurrency=2, acks_late=True)
def two_late(key: str, how: str = "", seconds: float = 0.0) -> None:
    """Run with one other at most; may be repeated."""
    _behave(key, how, seconds)


@task(max_concurrency=1, concurrency_key=lambda account, *_, **__: account)
def by_account(account: str, key: str, how: str = "", seconds: float = 0.0) -> None:
    """Run alone for its account."""
    note("start", account, key)
    time.sleep(seconds)
    note("end", account, key)


@task(fair_by=lambda tenant, *_, **__: tenant, autoretry_for=(ValueError,), default_retry_delay=0)
def of_tenant(tenant: str | None, key: str = "", how: str = "") -> None:
    """Take turns with the tasks of other tenants."""
    _behave(f"{tenant}{key}", how)


@task(fair_by=lambda tenant, *_, **__: tenant, max_concurrency=1)
def of_tenant_alone(tenant: str) -> None:
    """Take turns, and run alone."""
    _behave(tenant, "")


@task(rate_limit="20/s")
def paced(key: str, seconds: float = 0.0, how: str = "") -> None:
    """Start at even distances."""
    _behave(key, how, seconds)


@task(rate_limit="20/s", max_concurrency=2)
def paced_pair(key: str, seconds: float = 0.0) -> None:
    """Start at even distances, with one other at most."""
    _behave(key, "", seconds)


@task(rate_limit="1/h burst 3", concurrency_key=lambda account, *_, **__: account)
def in_bursts(account: str, key: str, how: str = "") -> None:
    """Start three times at once for its account."""
    _behave(f"{account}-{key}", how)


@task(
    concurrency_key=lambda account, *_, **__: account,
    max_concurrency=lambda account, *_, **__: {"one": 1, "two": 2, "wrong": 0}.get(account),
    rate_limit=lambda account, *_, **__: "1/h burst 3" if account == "rated" else None,
)
def by_size(account: str, key: str, how: str = "") -> None:
    """Have the limits of its account."""
    _behave(f"{account}-{key}", how)


@task(
    max_concurrency=2, on_limit="discard", acks_late=True, concurrency_key=lambda account, *_, **__: account
)
def two_or_none(account: str, key: str, how: str = "") -> None:
    """Run with one other at most, or not at all."""
    _behave(f"{account}-{key}", how)


@task(rate_limit="20/s burst 4")
def paced_in_bursts(key: str, how: str = "") -> None:
    """Start at even distances, after a pause four at once."""
    _behave(key, how)


@task(unique=True)
def only_waiting(key: str, how: str = "") -> None:
    """Be alone while waiting."""
    _behave(key, how)


@task(unique="running")
def only_one(key: str, how: str = "") -> None:
    """Be alone until it has finished."""
    _behave(key, how)


@task(unique=True, acks_late=True)
def only_waiting_late(key: str, how: str = "") -> None:
    """Be alone while waiting; may be repeated."""
    _behave(key, how)


@task(unique=True)
def only_with_defaults(first: int, second: str = "x", *rest: int, option: bool = False, **more: int) -> None:
    """Be called in many ways."""


@task(unique=True)
def only_with_any_defaults(
    day: int,
    fmt: str | None = None,
    tags: list[str] = [],  # noqa: B006  # as people write it
    /,
    pair: tuple[int, int] = (1, 2),
    *,
    options: dict[str, object] = {"b": None, "a": [(1,)]},  # noqa: B006
    marker: object = ...,
    how: Color = Color.RED,
) -> None:
    """Have defaults of any kind."""


@task(unique=lambda key, *_, **__: key)
def only_by_key(key: str, value: int = 0) -> None:
    """Be alone for its key while waiting."""
    note("end", f"{key}-{value}")


@task(unique_for=3600)
def hourly(key: str) -> None:
    """Be enqueued once an hour."""
    _behave(key, "")


@task(throttle=0.3)
def throttled(key: str) -> None:
    """Be enqueued once in a while."""
    _behave(key, "")


@task(unique=lambda key, *_, **__: key, on_conflict="replace")
def latest(key: str, value: int = 0) -> None:
    """Take the place of the one that waits."""
    note("end", f"{key}-{value}")


@task(
    unique=lambda key, *_, **__: key,
    on_conflict="replace",
    max_concurrency=1,
    concurrency_key=lambda _key, value: value,
)
def latest_in_group(key: str, value: int = 0) -> None:
    """Take the place of the one that waits, and perhaps change its group."""
    note("end", f"{key}-{value}")


@task(unique=lambda key, *_, **__: key, debounce=3600, debounce_max=5400)
def debounced(key: str, value: int = 0) -> None:
    """Wait until it is quiet."""
    note("end", f"{key}-{value}")


@task(unique=True, on_conflict="raise")
def only_or_error(key: str) -> None:
    """Refuse a second one."""
    _behave(key, "")
