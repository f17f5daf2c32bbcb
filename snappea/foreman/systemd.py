"""What the Foreman tells systemd (`Type=notify`): one datagram to the socket that systemd names.

Nothing is sent if systemd did not ask for it, and a failure never harms the Foreman.
"""

import os
import socket
from logging import WARNING

from ..log import say_seldom

#: The Foreman is at work.
READY = "READY=1"
#: The Foreman claims no more tasks.
STOPPING = "STOPPING=1"
#: The loop turns. Without this for WatchdogSec systemd kills the Foreman.
ALIVE = "WATCHDOG=1"


def notify(*words: str) -> bool:
    """Tell systemd. Return whether it was told."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # an abstract address
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.setblocking(False)  # never wait for systemd
            out.sendto("\n".join(words).encode(), address)
    except OSError as error:
        say_seldom(WARNING, "Could not tell systemd %s: %s", " ".join(words), error)
        return False
    return True


class Supervisor:
    """The systemd that started this process, if any."""

    def __init__(self) -> None:
        """Read from the environment what systemd expects."""
        self._knows = False
        is_for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watches = is_for_us and os.environ.get("WATCHDOG_USEC", "").isdecimal()

    def reassure(self) -> None:
        """Tell systemd that the Foreman is at work. Called by the loop, which stops if the Foreman hangs."""
        words = [] if self._knows else [READY]
        if self._watches:
            words.append(ALIVE)
        if words:
            notify(*words)
            self._knows = True
