"""The spike: a few processes that send events all at once, and the answers they got."""

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from .children import Child

PROCESSES = 4


class Answer(NamedTuple):
    """What the server said to an event. Status 0: nothing."""

    event_id: str
    status: int
    seconds: float


class Spike:
    """The senders of `events` events. They start when told to, all together."""

    def __init__(self, dsn: str, events: int, log: Path, stack: ExitStack) -> None:
        self.answers: list[Answer] = []
        self.seconds = 0.0
        self._ready = 0
        self._text = ""
        gun_end, self._gun = os.pipe()
        self._answers_end, answers = os.pipe()
        stack.callback(os.close, self._answers_end)
        os.set_blocking(self._answers_end, False)
        self.senders: list[Child] = []
        for seed in range(PROCESSES):
            number = len(range(seed, events, PROCESSES))
            arguments = ["-m", "example_project.demo.sender", dsn, str(number), str(seed)]
            sender = Child(f"Sender {seed + 1}", arguments, log, stdin=gun_end, stdout=answers)
            stack.callback(sender.stop)
            self.senders.append(sender)
        os.close(gun_end)
        os.close(answers)

    def is_ready(self) -> bool:
        """Tell whether all senders wait for the starting gun. Raises ChildDied."""
        self._read()
        for sender in self.senders:
            sender.require_alive()
        return self._ready == len(self.senders)

    def start(self) -> None:
        """Fire the starting gun."""
        self._began = time.monotonic()
        os.close(self._gun)

    def is_over(self) -> bool:
        """Collect answers, and tell whether these were the last. Raises ChildDied."""
        running = [sender for sender in self.senders if not sender.is_done()]
        self._read()
        return not running

    def _read(self) -> None:
        try:
            while piece := os.read(self._answers_end, 65536):
                self._text += piece.decode()
        except BlockingIOError:
            pass  # nothing more at the moment
        *lines, self._text = self._text.split("\n")
        for line in lines:
            if line == "ready":
                self._ready += 1
            else:
                event_id, status, seconds = line.split()
                self.answers.append(Answer(event_id, int(status), float(seconds)))
                self.seconds = time.monotonic() - self._began
