"""Workers: a row for each, with what it runs; and what their tab shows."""

from collections.abc import Iterable
from typing import Any

from django.http import HttpRequest

from .. import stats
from ..models import Task
from ..monitoring import inspect
from ..monitoring.formatting import named_arguments
from .columns import ago, short_name

#: For how many running tasks of a Foreman to show a row.
MOST_ROWS = 200


def contents(request: HttpRequest) -> dict[str, Any]:
    """Return what the tab shows: each Foreman with its rows, and the tasks that a dead one left running."""
    foremen, runs = stats.at_work(inspect.in_flight())
    known: dict[int | None, list[dict[str, Any]]] = {info["number"]: [] for info in foremen}
    left: list[dict[str, Any]] = []
    for run in runs:
        known.get(run.foreman, left).append(run._asdict())
    return {
        "foremen": [
            {**info, "since": ago(info["since"]), **_rows([info], known[info["number"]])} for info in foremen
        ],
        "left": _rows([], left),
    }


def _rows(foremen: list[dict[str, Any]], runs: list[dict[str, Any]]) -> dict[str, Any]:
    rows = slots(foremen, runs)
    return {"slots": with_arguments(rows[:MOST_ROWS]), "more_slots": max(0, len(rows) - MOST_ROWS)}


def slots(foremen: Iterable[dict[str, Any]], runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each worker: what it runs, or an empty one; then those of the event loop.

    `foremen` and `runs` are of a `stats.snapshot()`.
    """
    threads = [run for run in runs if not run["is_async"]]
    on_loop = [run for run in runs if run["is_async"]]
    idle = sum(info["workers"] for info in foremen) - sum(not run["is_stuck"] for run in threads)
    return [*map(_slot, threads), *[{}] * idle, *map(_slot, on_loop)]


def _slot(run: dict[str, Any]) -> dict[str, Any]:
    total = run["total"] or run["limit"]
    done = (run["done"] or 0) if run["total"] else run["elapsed"]
    share = f"{min(max(done / total, 0), 1):.4f}" if total else None
    is_late = bool(run["limit"]) and run["elapsed"] > run["limit"]
    return {**run, "short": short_name(run["task_name"]), "share": share, "is_late": is_late}


def with_arguments(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the arguments of the tasks to rows, by name."""
    tasks = Task.objects.only("task_name", "args", "kwargs", "is_sensitive")
    found = tasks.in_bulk([row["id"] for row in rows if row])
    return [
        row | {"arguments": named_arguments(found[row["id"]])} if row.get("id") in found else row
        for row in rows
    ]
