"""An environment for each queue, with its own versions; created once, and kept."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .systems.base import System

#: Where they are kept by default.
HOME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snappea-benchmarks"


class NotInstalled(Exception):
    """A system cannot be installed; the message says why."""


def python_of(system: System, home: Path) -> Path:
    """Return the interpreter of a system's environment, which is created if needed.

    Raises NotInstalled.
    """
    base = _interpreter(system.oldest_python)
    wanted = "\n".join((base, *sorted(system.requirements)))
    directory = home / f"{system.family}-{hashlib.sha256(wanted.encode()).hexdigest()[:8]}"
    if not (directory / "ready").exists():
        _run([base, "-m", "venv", "--clear", str(directory)])
        _run([str(directory / "bin" / "python"), "-m", "pip", "install", "-q", *system.requirements])
        (directory / "ready").touch()
    return directory / "bin" / "python"


def _interpreter(oldest: tuple[int, int]) -> str:
    """Return the Python that runs this, or the oldest one that is new enough."""
    if sys.version_info >= oldest:
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for minor in range(oldest[1], 20):
        names = [f"python3.{minor}", *map(str, sorted(pyenv.glob(f"3.{minor}.*/bin/python")))]
        for name in filter(None, map(shutil.which, names)):
            if subprocess.run([name, "-c", ""], capture_output=True).returncode == 0:
                return name
    raise NotInstalled(f"there is no Python {'.'.join(map(str, oldest))} or later")


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NotInstalled(f"{' '.join(command)}: {done.stderr[-1000:]}")
