"""What happens in a life."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """What a process does, and when. The seed chooses the rest."""

    at: float
    who: str
    verb: str
    seed: int

    def __str__(self) -> str:
        return f"{self.at:9.4f} {self.who}: {self.verb} ({self.seed})"
