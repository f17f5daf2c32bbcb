"""Log lines that can do no harm."""

import logging
from functools import partial

import pytest

from snappea import log
from tests.playground.broken_logging import BrokenHandler


def test_a_handler_that_raises_is_borne() -> None:
    handler = BrokenHandler()
    log.foreman.addHandler(handler)
    try:
        log.say(logging.ERROR, "nobody hears %s", "this")
    finally:
        log.foreman.removeHandler(handler)


def test_what_repeats_is_said_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_last_said", {})
    for now in (1000.0, 1030.0, 1059.9, 1060.0, 1119.0, 1121.0):
        monkeypatch.setattr("snappea.log.time.monotonic", partial(float, now))
        log.say_seldom(logging.WARNING, "again: %s", "this")
    log.say_seldom(logging.WARNING, "again: %s", "something else")
    assert [record.getMessage() for record in caplog.records] == ["again: this"] * 3 + [
        "again: something else"
    ]
    assert len(log._last_said) <= 2


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain é", "plain é"),
        ("a\nb", r"a\nb"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\u202eabc", r"\u202eabc"),
        ("\0", r"\x00"),
        ("Straße\n東京\x1b é\\", r"Straße\n東京\x1b é" + "\\"),
    ],
)
def test_control_characters_are_escaped(text: str, cleaned: str) -> None:
    assert log.clean(text) == cleaned
