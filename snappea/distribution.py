"""How Snappea is installed: the distribution is django-snappea, the module is snappea.

The distribution that is called snappea is another project (Bugsink's), whose module has the same name. With
both installed the files of two projects lie in one folder.
"""

import json
import shlex
import sys
from importlib import metadata
from urllib.parse import unquote

NAME = "django-snappea"
OTHER = "snappea"


def extra(name: str) -> str:
    """Return what pip installs for an extra of Snappea, as in "django-snappea[cron]"."""
    return f"{NAME}[{name}]"


def other() -> metadata.Distribution | None:
    """Return the other project's distribution, if it is installed beside ours."""
    ours, found = _find(NAME), _find(OTHER)
    if ours is None or found is None:
        return None
    summary = ours.metadata.json.get("summary")
    is_ours = summary is not None and found.metadata.json.get("summary") == summary
    return None if is_ours else found  # before 0.7 ours was called snappea as well


def told(other: metadata.Distribution) -> tuple[str, str]:
    """Return what is wrong if the other project is installed as well, and the cure."""
    wrong = (
        f"Both {NAME} and {OTHER} {other.version} are installed: two projects, whose modules are "
        f"called {OTHER} and share one folder."
    )
    cure = (
        f"Uninstall {OTHER}, then install {NAME} again, since that removes files of both: "
        f"pip uninstall -y {OTHER} && {_reinstall()}"
    )
    return wrong, cure


def require_ours() -> None:
    """Raise ImportError if the other project's files have replaced ours, so that no check of ours runs."""
    if not hasattr(sys.modules[__package__], "__version__") and (found := other()):
        raise ImportError(" ".join(told(found)))


def _reinstall() -> str:
    """Return the command that puts our files back, from where they were installed."""
    ours = _find(NAME)
    origin = json.loads((ours and ours.read_text("direct_url.json")) or "{}")
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


require_ours()
