"""Detects another distribution with a package called snappea.

This project's distribution is django-snappea; until 0.7 it was called snappea. The distribution now called
snappea is another project, Bugsink's. If both are installed, their files share one folder.
"""

import json
import os
import shlex
import sys
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from importlib import metadata

NAME = "django-snappea"
OTHER = "snappea"


def conflict() -> tuple[str, str] | None:
    """Return what is wrong and the cure if the other project is installed too; None if it is not."""
    if not _has_folder(OTHER):
        return None
    ours, other = _find(NAME), _find(OTHER)
    if ours is None or other is None:
        return None
    summary = ours.metadata.json.get("summary")
    if summary is not None and summary == other.metadata.json.get("summary"):
        return None
    wrong = (
        f"Both {NAME} and {OTHER} {other.version} are installed: two projects with packages that are both "
        f"called {OTHER} and share one folder."
    )
    cure = (
        f"Uninstall {OTHER}, which removes files of both, then reinstall {NAME}: "
        f"pip uninstall -y {OTHER} && {_reinstall(ours)}"
    )
    return wrong, cure


def _has_folder(name: str) -> bool:
    """Return whether there may be a distribution. Its metadata takes half a megabyte to read."""
    folders = (folder for path in sys.path if os.path.isdir(path) for folder in os.listdir(path))
    return any(folder.startswith((f"{name}-", f"{name}.")) and folder.endswith("-info") for folder in folders)


def _reinstall(ours: "metadata.Distribution") -> str:
    """Return the command that reinstalls our files from the same source."""
    origin = json.loads(ours.read_text("direct_url.json") or "{}")
    source = unquote(origin.get("url", NAME).removeprefix("file://"))
    if "vcs_info" in origin:
        source = f"{origin['vcs_info']['vcs']}+{source}"
    editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
    return f"pip install --force-reinstall --no-deps {editable}{shlex.quote(source)}"


def _find(name: str) -> "metadata.Distribution | None":
    from importlib import metadata

    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
