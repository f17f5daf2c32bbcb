"""The spike: processes that send events at the same time, and the responses that they get."""

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from .children import Child

PROCESSES = 4


class Answer(NamedTuple):
    """The response to an event. Status 0: there was none."""

    event_id: str
    status: int
    seconds: float


class Spike:
    """The processes that send `events` events. They all start at the same time, with start()."""

    def __init__(self, dsn: str, events: int, log: Path, stack: ExitStack) -> None:
        self.answers: list[Answer] = []
        self.seconds = 0.0
        self._ready = 0
        self._text = ""
        signal_end, self._start_signal = os.pipe()
        self._answers_end, answers = os.pipe()
        stack.callback(os.close, self._answers_end)
        os.set_blocking(self._answers_end, False)
        self.senders: list[Child] = []
        for seed in range(PROCESSES):
            number = len(range(seed, events, PROCESSES))
            arguments = ["-m", "example_project.demo.sender", dsn, str(number), str(seed)]
            sender = Child(f"Sender {seed + 1}", arguments, log, stdin=signal_end, stdout=answers)
            stack.callback(sender.stop)
            self.senders.append(sender)
        os.close(signal_end)
        os.close(answers)

    def is_ready(self) -> bool:
        """Tell whether all senders wait for the signal to start. Raises ChildDied."""
        self._read()
        for sender in self.senders:
            sender.require_alive()
        return self._ready == len(self.senders)

    def start(self) -> None:
        """Let all senders start."""
        self._began = time.monotonic()
        os.close(self._start_signal)

    def is_over(self) -> bool:
        """Collect responses, and tell whether these were the last. Raises ChildDied."""
        running = [sender for sender in self.senders if not sender.is_done()]
        self._read()
        return not running

    def _read(self) -> None:
        try:
            while piece := os.read(self._answers_end, 65536):
                self._text += piece.decode()
        except BlockingIOError:
            pass  # no more for now
        *lines, self._text = self._text.split("\n")
        for line in lines:
            if line == "ready":
                self._ready += 1
            else:
                event_id, status, seconds = line.split()
                self.answers.append(Answer(event_id, int(status), float(seconds)))
                self.seconds = time.monotonic() - self._began
