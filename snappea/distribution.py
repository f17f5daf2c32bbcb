"""Whether the other project whose module is called snappea is installed as well.

Our distribution is django-snappea. The distribution called snappea is another project (Bugsink's). With both
installed, the files of two projects are in one folder. Until 0.7 ours was called snappea too.
"""

import json
import shlex
from importlib import metadata
from urllib.parse import unquote

NAME = "django-snappea"
OTHER = "snappea"


def conflict() -> tuple[str, str] | None:
    """Return what is wrong if the other project is installed as well, and the cure; None if it is not."""
    ours, other = _find(NAME), _find(OTHER)
    if ours is None or other is None:
        return None
    summary = ours.metadata.json.get("summary")
    if summary is not None and summary == other.metadata.json.get("summary"):
        return None
    wrong = (
        f"Both {NAME} and {OTHER} {other.version} are installed: two projects, whose modules are "
        f"called {OTHER} and share one folder."
    )
    cure = (
        f"Uninstall {OTHER}, which removes files of both, then install {NAME} again: "
        f"pip uninstall -y {OTHER} && {_reinstall(ours)}"
    )
    return wrong, cure


def _reinstall(ours: metadata.Distribution) -> str:
    """Return the command that installs our files again, from where they came."""
    origin = json.loads(ours.read_text("direct_url.json") or "{}")
    source = unquote(origin.get("url", NAME).removeprefix("file://"))
    if "vcs_info" in origin:
        source = f"{origin['vcs_info']['vcs']}+{source}"
    editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
    return f"pip install --force-reinstall --no-deps {editable}{shlex.quote(source)}"


def _find(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
