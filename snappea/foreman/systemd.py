"""Notify systemd (`Type=notify`), with datagrams to the socket that systemd names, if it does.

Failures never harm the Foreman.
"""

import os
import socket
from logging import WARNING

from ..log import say_seldom

#: The Foreman works.
READY = "READY=1"
#: The Foreman claims no more tasks.
STOPPING = "STOPPING=1"
#: The loop turns. If this is missing for WatchdogSec, systemd kills the Foreman.
ALIVE = "WATCHDOG=1"


def notify(*words: str) -> bool:
    """Notify systemd. Return whether that was done."""
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
        say_seldom(WARNING, "Could not send %s to systemd: %s", " ".join(words), error)
        return False
    return True


class Supervisor:
    """The systemd that started this process, if any."""

    def __init__(self) -> None:
        """Read what systemd expects from the environment."""
        self._knows = False
        is_for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        #: Whether it ends a Foreman that it does not hear from.
        self.watches = is_for_us and os.environ.get("WATCHDOG_USEC", "").isdecimal()

    def reassure(self) -> None:
        """Notify systemd. Called by the loop, so that the watchdog notices a Foreman that hangs."""
        words = [] if self._knows else [READY]
        if self.watches:
            words.append(ALIVE)
        if words:
            notify(*words)
            self._knows = True
