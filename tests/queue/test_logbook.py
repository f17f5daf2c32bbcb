"""The logbook: notes can be read after the process has ended, on the same boot only."""

import os
from pathlib import Path

import pytest

from snappea.foreman.in_flight import InFlight
from snappea.queue import logbook
from snappea.queue.database import connect, file_of
from snappea.queue.files import QueueFile
from snappea.queue.logbook import Entry, Logbook, Note
from snappea.queue.records import Claim, Outcome
from tests.site import Site

CLAIM = Claim(0, 1, 1, "x", "[]", "{}", started_at="2026-01-01 12:00:00.5")


@pytest.fixture
def file(site: Site) -> QueueFile:
    found = file_of(connect())
    assert found
    return found


def test_notes_are_read_by_task_claim_and_moment(file: QueueFile) -> None:
    book = Logbook(file, 10)
    moments = ["2026-01-01 12:00:00", "2026-01-01 12:00:00.000001", "1950-01-01", "9999-12-31"]
    moments += ["nonsense", "2026-01-02"]
    claims = [CLAIM._replace(id=5, claims=7, started_at=moment) for moment in moments]
    for claim, note in zip(claims, Note, strict=True):
        book.note(book.enter(claim), note)
    assert logbook.read(file) == {
        Entry.of(5, 7, "2026-01-01 12:00:00"): Note.CLAIMED,
        Entry.of(5, 7, "2026-01-01 12:00:00.000001"): Note.BEGUN,
        Entry.of(5, 7, "1950-01-01"): Note.SUCCEEDED,
        Entry.of(5, 7, "9999-12-31 00:00:00"): Note.FAILED,
        Entry.of(5, 7, None): Note.TO_RETRY,
        Entry.of(5, 7, "2026-01-02"): Note.REVOKED,
    }
    book.close()


def test_notes_survive_the_death_of_the_process(file: QueueFile) -> None:
    if (child := os.fork()) == 0:
        book = Logbook(file, 10)
        book.note(book.enter(CLAIM), Note.BEGUN)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert logbook.read(file) == {Entry.of(*CLAIM.fence): Note.BEGUN}


def test_a_cell_that_was_released_says_nothing_and_starts_anew(file: QueueFile) -> None:
    book = Logbook(file, 1)
    cell = book.enter(CLAIM)
    book.note(cell, Note.SUCCEEDED)
    book.release([cell])
    assert logbook.read(file) == {}
    other = CLAIM._replace(id=2, claims=5)
    assert book.enter(other) == cell
    assert logbook.read(file) == {Entry.of(*other.fence): Note.CLAIMED}
    with pytest.raises(IndexError):
        book.enter(CLAIM)
    book.close()


def test_a_new_logbook_is_empty(file: QueueFile) -> None:
    first = Logbook(file, 20)
    first.note(first.enter(CLAIM), Note.BEGUN)
    first.close()
    Logbook(file, 5).close()
    assert logbook.read(file) == {}


@pytest.mark.parametrize("content", [b"", b"x", b"snappea2", bytes(1000), b"snappea2" + b"\xff" * 500])
def test_what_is_no_logbook_is_not_believed(file: QueueFile, content: bytes) -> None:
    Path(file.logbook).write_bytes(content)
    assert logbook.read(file) is None


def test_a_logbook_with_a_note_that_is_none_is_not_believed(file: QueueFile) -> None:
    book = Logbook(file, 5)
    book.note(book.enter(CLAIM), 99)
    book.close()
    assert logbook.read(file) is None


def test_no_logbook(file: QueueFile) -> None:
    assert logbook.read(file) is None


def test_a_logbook_of_another_boot_is_not_believed(file: QueueFile, monkeypatch: pytest.MonkeyPatch) -> None:
    Logbook(file, 5).close()
    assert logbook.read(file) is not None
    monkeypatch.setattr(logbook, "_boot_id", lambda: b"another boot")
    assert logbook.read(file) is None


def test_where_the_system_does_not_tell_its_boot_no_logbook_is_believed(
    file: QueueFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logbook, "_boot_id", lambda: b"")
    Logbook(file, 5).close()
    assert logbook.read(file) is None


@pytest.fixture
def in_flight(site: Site) -> InFlight:
    in_flight = InFlight()
    in_flight.logbook = Logbook(None, 4)
    return in_flight


def all_cells(in_flight: InFlight) -> list[int]:
    return sorted([*in_flight.logbook.free, *in_flight.claims])


def test_no_cell_is_lost_to_a_number_that_does_not_fit(in_flight: InFlight) -> None:
    in_flight.open([CLAIM])
    ((kept, _),) = in_flight.take_entered()
    for wrong in (2**63, "many", None):
        with pytest.raises((TypeError, ValueError)):
            in_flight.open([CLAIM, CLAIM._replace(claims=wrong)])  # type: ignore[arg-type]
        in_flight.abandon()
        assert all_cells(in_flight) == [0, 1, 2, 3]
        in_flight.close()
        assert list(in_flight.claims) == [kept] and len(in_flight.logbook.free) == 3


def test_claims_are_counted_by_where_they_run(in_flight: InFlight) -> None:
    def counts() -> tuple[int, ...]:
        free, on_loop = len(in_flight.logbook.free), len(in_flight.on_loop)
        return free, in_flight.count_running() - on_loop, on_loop, in_flight.started

    on_loop = CLAIM._replace(is_async=True)
    in_flight.open([CLAIM, on_loop, on_loop])
    assert counts() == (1, 1, 2, 3)
    first, second, third = in_flight.take_entered()
    in_flight.collect([(second[0], Outcome(on_loop, 0.1))])
    assert counts() == (1, 1, 1, 3), "what has ended keeps its cell until that is committed"
    in_flight.take_back([first, third])
    assert counts() == (1, 0, 0, 1)
    assert [outcome.claim for outcome in in_flight.close()] == [on_loop]
    assert counts() == (4, 0, 0, 1)


def test_what_was_not_handed_over_is_given_back(in_flight: InFlight) -> None:
    in_flight.open([CLAIM, CLAIM])
    in_flight.abandon()
    assert [claim for _cell, claim in in_flight.unbegun] == [CLAIM, CLAIM] and in_flight.started == 0
    in_flight.close()
    assert len(in_flight.logbook.free) == 4 and not in_flight.claims and not in_flight.entered


def test_more_claims_than_cells_lose_nothing(in_flight: InFlight) -> None:
    with pytest.raises(IndexError):
        in_flight.open([CLAIM] * 5)
    in_flight.abandon()
    in_flight.close()
    assert len(in_flight.logbook.free) == 4
