"""Amounts of memory: as people write them, what a process has, and what there is to be had."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?)B?", re.IGNORECASE)
#: More is not to be had anywhere, and no limit of the system can be set to it.
_MOST = 2**62
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
#: Where control groups are mounted, and in which file of theirs the limit stands: version 2 and 1.
_UNIFIED = (("sys/fs/cgroup", "memory.max"), ("sys/fs/cgroup/unified", "memory.max"))
_LEGACY = (("sys/fs/cgroup/memory", "memory.limit_in_bytes"),)


def parse_size(written: object) -> int | None:
    """Return how many bytes 1048576, "512M" or "1.5G" are, None if it is nothing of the kind."""
    if isinstance(written, int) and not isinstance(written, bool):
        return written if 0 < written <= _MOST else None
    found = _SIZE.fullmatch(written.strip()) if isinstance(written, str) else None
    size = float(found[1]) * _UNITS[found[2].upper()] if found else 0
    return int(size) or None if size <= _MOST else None


def limit_in_bytes(written: int | str | None, root: str = "/") -> int | None:
    """Return how many bytes a MAX_MEMORY is, where "80%" is of available(root); None: no limit."""
    if isinstance(written, str) and written.endswith("%"):
        return available(root) * int(written[:-1]) // 100
    return parse_size(written)


def resident(pid: int | str = "self") -> int:
    """Return how many bytes of memory a process has; 0 where the system does not say."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def available(root: str = "/") -> int:
    """Return how many bytes this process may have: the machine's memory, or its container's if less.

    `root`: the directory under which /proc and /sys lie.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min((machine, *_limits_of_groups(Path(root))))


def _limits_of_groups(root: Path) -> Iterator[int]:
    """Yield the limits of this process's control groups and of all that they lie in."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for number, kinds, path in (line.split(":", 2) for line in lines):
        if number != "0" and "memory" not in kinds.split(","):
            continue
        for mount, name in _UNIFIED if number == "0" else _LEGACY:
            group = Path(os.path.normpath(path))
            # seen from within a container, the path may be one that only its host knows; the mount
            # itself is then the container's group
            for inner in (group, *group.parents):
                yield from _read_limit(root / mount / str(inner).lstrip("/") / name)


def _read_limit(file: Path) -> Iterator[int]:
    try:
        yield int(file.read_text())
    except (OSError, ValueError):
        pass  # no such group, no limit there, or "max"
