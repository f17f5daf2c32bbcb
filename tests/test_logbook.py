"""The logbook: what is noted can be read after the process is gone, and only on the same boot."""

import os
from pathlib import Path

import pytest

from snappea import logbook
from snappea.database import QueueFile, connect, file_of
from snappea.logbook import Logbook, Note
from snappea.office.accounts import Accounts
from snappea.records import Claim
from tests.site import Site


@pytest.fixture
def file(site: Site) -> QueueFile:
    found = file_of(connect())
    assert found
    return found


def test_notes_are_read_by_task_and_claim(file: QueueFile) -> None:
    book = Logbook(file, 10)
    cells = [book.enter(100 + number, 7) for number in range(len(Note))]
    for cell, note in zip(cells, Note, strict=True):
        book.note(cell, note)
    notes = logbook.read(file)
    assert notes and {key: note for key, note in notes.items() if key[0]} == {
        (100, 7): Note.CLAIMED,
        (101, 7): Note.BEGUN,
        (102, 7): Note.SUCCEEDED,
        (103, 7): Note.FAILED,
        (104, 7): Note.TO_RETRY,
    }
    book.close()


def test_notes_survive_the_death_of_the_process(file: QueueFile) -> None:
    if (child := os.fork()) == 0:
        book = Logbook(file, 10)
        book.note(book.enter(5, 1), Note.BEGUN)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    notes = logbook.read(file)
    assert notes and notes[5, 1] is Note.BEGUN


def test_a_cell_that_is_used_again_starts_anew(file: QueueFile) -> None:
    book = Logbook(file, 1)
    cell = book.enter(1, 1)
    book.note(cell, Note.SUCCEEDED)
    book.free.append(cell)
    assert book.enter(2, 5) == cell
    assert logbook.read(file) == {(2, 5): Note.CLAIMED}
    with pytest.raises(IndexError):
        book.enter(3, 1)
    book.close()


def test_a_new_logbook_is_empty(file: QueueFile) -> None:
    first = Logbook(file, 20)
    first.note(first.enter(1, 1), Note.BEGUN)
    first.close()
    Logbook(file, 5).close()
    assert logbook.read(file) == {(0, 0): Note.CLAIMED}


@pytest.mark.parametrize("content", [b"", b"x", b"snappea1", bytes(1000), b"snappea1" + b"\xff" * 500])
def test_what_is_no_logbook_is_not_believed(file: QueueFile, content: bytes) -> None:
    Path(file.logbook).write_bytes(content)
    assert logbook.read(file) is None


def test_a_logbook_with_a_note_that_is_none_is_not_believed(file: QueueFile) -> None:
    book = Logbook(file, 5)
    book.note(book.enter(1, 1), 99)
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


def test_no_cell_is_lost_to_a_number_that_does_not_fit(site: Site) -> None:
    book, accounts = Logbook(None, 4), Accounts()
    good = Claim(0, 1, 1, "x", "[]", "{}")
    accounts.open([good], book)
    for wrong in (2**63, "many", None):
        with pytest.raises((TypeError, ValueError)):
            accounts.open([good, good._replace(claims=wrong)], book)  # type: ignore[arg-type]
        assert sorted([*book.free, *accounts.in_flight]) == [0, 1, 2, 3]
