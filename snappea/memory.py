"""How much memory a process uses, and how much it may use."""

import os
from collections.abc import Iterator
from pathlib import Path

from .conf import parse_size

#: Where control groups are mounted, and the file with the limit: version 2, and version 1.
_UNIFIED = (("sys/fs/cgroup", "memory.max"), ("sys/fs/cgroup/unified", "memory.max"))
_LEGACY = (("sys/fs/cgroup/memory", "memory.limit_in_bytes"),)


def limit_in_bytes(written: int | str | None, root: str = "/") -> int | None:
    """Return a MAX_MEMORY in bytes, or None for no limit. Percentages are of available(root)."""
    if isinstance(written, str) and written.endswith("%"):
        return available(root) * int(written[:-1]) // 100
    return parse_size(written)


def resident(pid: int | str = "self") -> int:
    """Return how many bytes of memory a process uses; 0 if the system does not report it."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def available(root: str = "/") -> int:
    """Return how many bytes this process may use: the memory of the machine or, if less, of the container.

    `root`: the directory that contains /proc and /sys.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min((machine, *_limits_of_groups(Path(root))))


def _limits_of_groups(root: Path) -> Iterator[int]:
    """Yield the limits of this process's control groups and their parents."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for number, kinds, path in (line.split(":", 2) for line in lines):
        if number != "0" and "memory" not in kinds.split(","):
            continue
        group = Path(os.path.normpath(path))
        for mount, name in _UNIFIED if number == "0" else _LEGACY:
            # a container may see a path of its host; then the mount itself is its group
            for outer in (group, *group.parents):
                try:
                    yield int((root / mount / str(outer).lstrip("/") / name).read_text())
                except (OSError, ValueError):
                    pass  # no such group, or no limit ("max")
