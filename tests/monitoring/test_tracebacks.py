"""Tracebacks, with the frames of libraries folded."""

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snappea.monitoring import formatting
from snappea.monitoring.tracebacks import traceback_parts
from tests.admin.test_lists import HOSTILE

FRAMES = """Traceback (most recent call last):
  File "/srv/venv/lib/python3.11/site-packages/requests/api.py", line 1, in get
    send()
  File "/usr/lib/python3.11/http/client.py", line 2, in send
    self.connect()
    ^^^^^^^^^^^^^^
OSError: down

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/srv/shop/tasks.py", line 3, in charge
    pay()
  [Previous line repeated 9 more times]
ValueError: no
    money"""


def test_frames_of_libraries_are_folded() -> None:
    parts = traceback_parts(FRAMES)
    assert [(part.kind, part.frames) for part in parts] == [
        ("text", 0),
        ("library", 2),
        ("text", 0),
        ("own", 1),
        ("text", 0),
    ]
    assert "\n".join(part.text for part in parts) == FRAMES
    assert parts[3].lines[-1] == "  [Previous line repeated 9 more times]"


def test_frames_in_a_group_of_exceptions() -> None:
    def inner() -> None:
        raise KeyError("inside")

    errors: list[Exception] = []
    try:
        inner()
    except KeyError as error:
        errors.append(error)
    try:
        raise ExceptionGroup("two", errors)
    except ExceptionGroup as error:
        text = "".join(traceback.format_exception(error))
    parts = traceback_parts(text)
    assert [part.frames for part in parts if part.kind == "own"] == [1, 2]
    assert "\n".join(part.text for part in parts) == text.rstrip("\n")


@pytest.mark.parametrize("text", ["", "x", HOSTILE, '  File "', '  File "", line 1, in \n', "\n" * 9])
def test_any_text_is_a_traceback(text: str) -> None:
    assert "\u202e" not in "".join(part.text for part in traceback_parts(text))


@given(st.text())
def test_a_traceback_is_shown_line_by_line(text: str) -> None:
    shown = [line for part in traceback_parts(text) for line in part.lines]
    assert shown == formatting.cut(formatting.plain(text)).splitlines()
