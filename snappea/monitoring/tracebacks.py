"""Tracebacks for people: the frames of the project, and those of libraries to fold."""

import re
import sysconfig
from pathlib import Path
from typing import NamedTuple

from .formatting import cut, plain

#: In a group of exceptions, the line of a frame begins with "|".
_FRAME = re.compile(r'([\s|+-]*)File "(.*)", line \d+, in ')
_LIBRARIES = re.compile(r"<frozen |.*[/\\](?:site-packages|dist-packages|lib(?:64)?[/\\]python3[.\d]*)[/\\]")
_OUTSIDE = (f"{Path(__file__).parent.parent}/", f"{sysconfig.get_path('stdlib')}/")


class Part(NamedTuple):
    """Lines that belong together. `kind`: "own" or "library" for frames, "text" for everything else."""

    kind: str
    lines: list[str]
    frames: int

    @property
    def text(self) -> str:
        """The lines as in the traceback."""
        return "\n".join(self.lines)


def traceback_parts(text: str) -> list[Part]:
    """Split a traceback into the frames of the project, those of libraries, and the text between them."""
    parts: list[Part] = []
    kind, indent = "text", None
    for line in cut(plain(text)).splitlines():
        is_frame = 0
        if found := _FRAME.match(line):
            kind, indent, is_frame = "library" if is_library(found[2]) else "own", found[1], 1
        elif indent is None or not line.startswith((f"{indent}  ", f"{indent}[Previous line repeated")):
            kind, indent = "text", None
        if not parts or parts[-1].kind != kind:
            parts.append(Part(kind, [], 0))
        last = parts[-1]
        parts[-1] = Part(kind, [*last.lines, line], last.frames + is_frame)
    return parts


def is_library(file: str) -> bool:
    """Tell whether a file is Snappea's, Python's, or in site-packages."""
    return file.startswith(_OUTSIDE) or _LIBRARIES.match(file) is not None
