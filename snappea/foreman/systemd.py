"""What the Foreman tells systemd of itself (`Type=notify`): one datagram to a socket that systemd names.

Where nobody asked for it there is nothing to do, and whatever goes wrong never harms the Foreman.
"""

import os
import socket
from logging import WARNING

from ..log import say_seldom

#: The Foreman is at work.
READY = "READY=1"
#: It claims no more.
STOPPING = "STOPPING=1"
#: Its loop turns; systemd kills it if that is not said for WatchdogSec.
ALIVE = "WATCHDOG=1"


def notify(*words: str) -> bool:
    """Tell systemd, and return whether it was told."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # an abstract name, which is in no directory
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.setblocking(False)  # rather untold than late
            out.sendto("\n".join(words).encode(), address)
    except OSError as error:
        say_seldom(WARNING, "Could not tell systemd %s: %s", " ".join(words), error)
        return False
    return True


class Supervisor:
    """The systemd that started this process, if one did."""

    def __init__(self) -> None:
        """See what it wants to be told."""
        self._knows = False
        is_for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watches = is_for_us and os.environ.get("WATCHDOG_USEC", "").isdecimal()

    def reassure(self) -> None:
        """Say that all is well. To be called by what would hang if the Foreman did."""
        words = [] if self._knows else [READY]
        if self._watches:
            words.append(ALIVE)
        if words:
            notify(*words)
            self._knows = True
