"""What the Foreman imports when it starts: every recipe that has tasks."""

from . import (  # noqa: F401
    asynchronous,
    chunks,
    cleanup,
    cron,
    failed,
    isolated,
    later,
    one_at_a_time,
    progress,
    rate_limit,
    results,
    retry,
    signals,
    tenants,
    testing,
    time_limit,
    tracing,
    transaction,
    unique,
)
