"""What must hold after a power cut: nothing accepted is lost, and what may run once is not run again."""

import json
from collections import Counter
from pathlib import Path

from django.db import DatabaseError, connections

from snappea.queue import logbook, recovery
from snappea.queue.clock import now
from snappea.queue.database import connect, file_of, transact
from tests.site import Site


def broken(directory: Path, runs: bool = False) -> list[str]:
    """Recover as a Foreman does at its start, and return the broken promises.

    `runs`: let a Foreman run until the queue is empty, so that what may run again does.
    """
    connections["snappea"].settings_dict["NAME"] = str(directory / "snappea.sqlite3")
    site = Site(directory)
    try:
        if (found := _integrity()) != "ok":
            return [f"is corrupt: {found}"]
        if not runs:
            file = file_of(connect())
            assert file
            with transact(connect()) as db:
                recovery.recover(db, now(), logbook.read(file))
    finally:
        connections["snappea"].close()
    if runs:
        site.variables["SNAPPEA_TEST_APPS"] = "tests.powerloss"
        assert site.manage("runsnappea", "--burst").wait() == 0, site.processes[0].output()
    return _lost(site) + _repeated(site)


def _integrity() -> str:
    try:
        with connect().cursor() as cursor:
            cursor.execute("PRAGMA integrity_check")
            return str(cursor.fetchone()[0])
    except DatabaseError as error:
        return repr(error)


def _lost(site: Site) -> list[str]:
    """Return what was accepted, and neither has ended nor is kept. A batch keeps what follows it."""
    kept = {json.loads(args)[0] for (args,) in site.sql("SELECT args FROM snappea_task")}
    calls = site.sql("SELECT on_complete FROM snappea_batch WHERE complete_id IS NULL")
    missing = site.ledger.keys("ack").keys() - site.ledger.keys("end").keys() - kept
    return [f"is lost: {key}" for key in missing if not any(key in call for (call,) in calls)]


def _repeated(site: Site) -> list[str]:
    """Return what has run once more than it may, or will: begun tasks, and steps that had returned."""
    found, kept, starts = [], set(), Counter[str]()
    for word, key in site.ledger.lines():
        if word == "kept":
            kept.add(f"{key}/first")
        elif word == "start":
            starts[key] += 1
            most = 2 if key.startswith("work") and "/" not in key else 1  # with its retry
            if key in kept or (starts[key] > most and not key.startswith("late")):
                found.append(f"ran again: {key}")
    for args, status, attempts, steps in site.sql("SELECT args, status, attempts, steps FROM snappea_task"):
        key = json.loads(args)[0]
        if status in ("ready", "scheduled") and attempts < starts[key] and not key.startswith("late"):
            found.append(f"will run again: {key}")
        if f"{key}/first" in kept and "first" not in steps:
            found.append(f"will run again: {key}/first")
    return found
