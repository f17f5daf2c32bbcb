"""What the soak stands on: the queue's database, and what can happen to it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from tests.site import Process, Site

if TYPE_CHECKING:
    from .supervisor import Post, Supervisor


class Ground(ABC):
    """A kind of database for the queue, with its faults."""

    site: Site
    #: How many Foremen run at the same time, and how many threads each of them has.
    foremen = 1
    workers = 6
    #: How long a Foreman must be away until others may take it for dead, in seconds.
    dead_after = math.inf
    #: How long an outcome may wait to be written on a busy machine, in seconds.
    unwritten = 1.0
    #: How late a call may be acknowledged, and a claimed task may start, in seconds.
    lateness = 10.0
    #: Whether a rate holds across the starts of different Foremen.
    shares_rates = False
    #: How many tasks the death of a Foreman may leave as interrupted that never began.
    unbegun_per_death = 0.2
    #: Why a task that never raises may have failed.
    excuses: tuple[str, ...] = ()
    #: Words in the Foreman's log about faults of this ground.
    expected: tuple[str, ...] = ()
    #: What even a short soak tries, in this order.
    first: "list[Fault]"
    #: The faults, those that end a Foreman apart.
    survived: "list[Fault]"
    deadly: "list[Fault]"

    def absence(self, chance: Random) -> float:
        """Return for how many seconds to stop a Foreman."""
        return chance.uniform(0.2, 6)

    @abstractmethod
    def variables(self, post: int) -> Mapping[str, str]:
        """Return variables for the environment of the Foreman at a post."""

    @abstractmethod
    def is_at_work(self, process: Process) -> bool:
        """Return whether a Foreman works."""

    @abstractmethod
    def locked(self, scene: "Scene") -> AbstractContextManager[None]:
        """Keep all others from writing."""

    @abstractmethod
    def unrest(self) -> str:
        """Return what is not yet at rest, though no task waits or runs; "" if nothing is."""

    @abstractmethod
    def damage(self) -> list[str]:
        """Return what is wrong with the database's files, when the Foremen have ended."""

    def log_size(self) -> int:
        """Return the size of the write-ahead log, in bytes."""
        return 0

    @abstractmethod
    def close(self) -> None:
        """Remove what was made."""


class Scene(NamedTuple):
    """What the faults affect."""

    ground: Ground
    supervisor: "Supervisor"
    chance: Random

    @property
    def site(self) -> Site:
        """The site."""
        return self.ground.site

    def pick(self) -> "Post":
        """Return one of the Foremen."""
        return self.chance.choice(self.supervisor.posts)


Fault = Callable[[Scene], None]
