"""What must hold at rest, at the end of a life: the ledger against the table."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tests.playground.ledger import Ledger

MEGABYTE = 1024 * 1024
#: Which keys are accepted when a call has returned; otherwise the key that is noted.
ACCEPTED = {
    "batch": ["complete", "member-0", "member-1", "member-2"],
    "bulk": ["bulk-1", "bulk-2"],
    "requeue": ["again"],
}


class Left:
    """What is left of a life. `misses`: how many tasks may be shown wrongly, a moment after a kill.

    A kill between the note in the logbook and the first or last line of a body is misjudged: see the manual.
    """

    def __init__(self, directory: Path, workers: int, misses: int) -> None:
        self.directory, self.workers, self.misses = directory, workers, misses
        self.ledger = Ledger(directory)
        self.lines = [(line[0], line[1]) for line in self.ledger.lines()]
        self.starts, self.ends = self.ledger.keys("start"), self.ledger.keys("end")
        with closing(sqlite3.connect(directory / "snappea.sqlite3")) as db:
            rows = db.execute("SELECT args, status, error FROM snappea_task").fetchall()
            calls = db.execute("SELECT on_complete FROM snappea_batch WHERE complete_id IS NULL").fetchall()
            (self.integrity,) = db.execute("PRAGMA integrity_check").fetchone()
        self.rows = [((json.loads(args) or ["tick"])[0], status) for args, status, _error in rows]
        self.kept = dict(self.rows)
        #: The tasks that failed because the disk refused a step or an outcome.
        self.hindered = [json.loads(args)[0] for args, _status, error in rows if "QueueUnavailable" in error]
        self.pending = " ".join(call for (call,) in calls)  # a batch keeps what follows it

    def broken(self) -> Iterator[str]:
        """Yield the broken promises."""
        yield from self._lost()
        yield from self._repeated()
        yield from self._imagined()
        yield from self._shown_wrongly()
        yield from self._crowded()
        yield from self._untimely()
        if self.integrity != "ok":
            yield f"I13: corrupt: {self.integrity}"
        for log in self.directory.glob("*-wal"):
            if log.stat().st_size > 8 * MEGABYTE:
                yield "I14: a large write-ahead log"

    def _lost(self) -> Iterator[str]:
        """I1, I3, I4: accepted or begun, but neither ended nor kept."""
        words = {"ack", *ACCEPTED}
        accepted = {key for word, one in self.lines if word in words for key in ACCEPTED.get(word, [one])}
        tried = {key for word, key in self.lines if word == "try-cancel"}
        for key in sorted((accepted | self.starts.keys()) - self.ends.keys() - self.kept.keys() - tried):
            if key not in self.pending:
                yield f"I1: lost: {key}"
        for key in self.starts.keys() - self.ends.keys():
            if key.startswith("late") and key not in self.hindered:
                yield f"I4: never completed: {key}"
            elif key.startswith("fail") and self.kept.get(key) not in ("failed", "interrupted"):
                yield f"I8: a failure that is not kept: {key}"

    def _repeated(self) -> Iterator[str]:
        """I2, I12, and steps: once more than it may, or several rows for a call."""
        most = Counter(key for word, key in self.lines if word == "raised" and key.startswith("work"))
        for key, count in self.starts.items():
            if count > 1 + most[key] and not key.startswith("late"):
                yield f"I2: started {count} times: {key}"
        kept = set()
        for word, key in self.lines:
            if word == "kept":
                kept.add(key)
            elif word == "step" and key in kept:
                yield f"ran a finished step again: {key}"
        for key, count in Counter(key for key, _status in self.rows).items():
            if count > 1:
                yield f"I12: {count} rows: {key}"

    def _imagined(self) -> Iterator[str]:
        """I10: what was refused, or was never called, has run or is there."""
        words = {"try-ack", *(f"try-{word}" for word in ACCEPTED)}
        tried = {key for word, one in self.lines if word in words for key in ACCEPTED.get(word[4:], [one])}
        there = self.starts.keys() | self.kept.keys()
        yield from (f"I10: {key} was never enqueued" for key in there - tried - {"tick", "again"})
        accepted = {key for word, key in self.lines if word in ("ack", "doubtful")}
        refused = {key for word, key in self.lines if word == "refused"} - accepted - {"again", "cancelled"}
        yield from (f"I10: refused, and there: {key}" for key in refused & there)
        gone = {key for word, key in self.lines if word == "cancel"}
        yield from (f"cancelled, and there: {key}" for key in gone & there)
        if ("held", "cancelled") in self.lines:
            yield "a call is refused for the sake of one that was cancelled"

    def _shown_wrongly(self) -> Iterator[str]:
        """I6, I7, I9, I16: at rest, each row is what happened to its task."""
        wrong = []
        for key, status in self.rows:
            has_ended = key in self.ends
            if status == "interrupted" and (has_ended or key not in self.starts):
                wrong.append(key)
            elif status not in ("interrupted", "failed", "successful"):
                yield f"I6, I7: {status} at rest: {key}"
            elif status == "failed" and (has_ended or not key.startswith(("fail", "again", *self.hindered))):
                yield f"I9: failed: {key}"
            elif status == "successful" and not has_ended:
                yield f"I9: successful: {key}"
        if len(wrong) > self.misses:
            yield f"I16: interrupted, though they had ended or never begun: {wrong}"
        for key in self.ends.keys() - self.kept.keys():
            if key.startswith("answer"):
                yield f"a result is not kept: {key}"

    def _crowded(self) -> Iterator[str]:
        """I11: too many bodies at once, in all or in a group, within one Foreman."""
        running: set[str] = set()
        for word, key in self.lines:
            if word == "foreman":
                running.clear()
            elif word == "start":
                running.add(key)
                alone = [one for one in running if one.startswith("record_alone")]
                if len(running) > self.workers or len(alone) > 1:
                    yield f"I11: at once: {running}"
            elif word in ("end", "raised"):
                running.discard(key)

    def _untimely(self) -> Iterator[str]:
        """I5, I17: too early, or while its queue is paused."""
        for started in self.ledger.moments("start", "delayed"):
            if started < self.ledger.moments("try-ack", "delayed")[0] + 0.1:
                yield "I5: started before its time"
        is_paused = False
        for word, key in self.lines:
            is_paused = (word, key) == ("pause", "mail") or (
                is_paused and (word, key) != ("try-resume", "mail")
            )
            if is_paused and word == "start" and key.startswith("mail"):
                yield f"I17: started while its queue is paused: {key}"
