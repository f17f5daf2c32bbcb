"""A process of the spike: `python -m example_project.demo.sender DSN NUMBER SEED`.

Prints "ready", and waits until its standard input is closed, which is the signal to start. Then it
raises and captures exceptions. For each event it prints the event's id, the status of the response
(0: none) and the duration in seconds.
"""

import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import HttpTransport
from urllib3.exceptions import HTTPError

from .shop import BLUNDERS


class DirectTransport(HttpTransport):
    """Sends in the calling thread: the SDK's own transport has a queue that may drop events."""

    status = 0
    seconds = 0.0

    def capture_envelope(self, envelope: Envelope) -> None:
        self.status, self.seconds = 0, 0.0
        try:
            self._send_envelope(envelope)
        except (HTTPError, OSError) as error:
            print(repr(error), file=sys.stderr)
        _say(f"{envelope.headers.get('event_id')} {self.status} {self.seconds:.6f}")

    def _request(self, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            response = super()._request(*args, **kwargs)
        finally:
            self.seconds = time.perf_counter() - began
        self.status = response.status
        return response


def _say(line: str) -> None:
    # a single write, because all senders share the pipe
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def main() -> None:
    dsn, number, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    sentry_sdk.init(
        dsn=dsn,
        release="shop@1.0",
        transport=DirectTransport,
        auto_enabling_integrations=False,
        http_proxy="",  # the server is on this machine: ignore a proxy of the environment
        max_breadcrumbs=0,  # they would record the sending itself
        _experiments={"transport_compression_level": 9},  # gzip, even if brotli is installed
    )
    weights = [1 / rank for rank in range(2, len(BLUNDERS) + 2)]
    blunders = random.Random(seed).choices(BLUNDERS, weights, k=number)
    _say("ready")
    sys.stdin.read()
    for blunder in blunders:
        _run(blunder)


def _run(blunder: Callable[[], object]) -> None:
    try:
        blunder()
    except Exception:
        sentry_sdk.capture_exception()


if __name__ == "__main__":
    main()
