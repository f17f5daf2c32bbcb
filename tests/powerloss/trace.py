"""Records the system calls of processes that change files, in their order, with what they write."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

#: What changes a file, or makes a change durable. `disk.py` refuses those that it does not know.
CALLS = (
    "open,openat,creat,write,writev,pwrite64,pwritev,pwritev2,sendfile,copy_file_range,fallocate,truncate,"
    "ftruncate,rename,renameat,renameat2,unlink,unlinkat,link,linkat,symlink,fsync,fdatasync"
)
_RETURNED = re.compile(r"\) += .*")
_QUOTED = re.compile(r'["<]((?:\\x[0-9a-f]{2})*)[">]')  # a string, or the path of a descriptor


@dataclass(eq=False)
class Call:
    """A system call: its strings and its descriptors' paths, in their order, and what else strace shows."""

    name: str
    strings: list[bytes]
    rest: str

    @property
    def path(self) -> str:
        """The file: that of the descriptor, or the last path."""
        return self.strings[-1 if "AT_FDCWD" in self.rest else 0].decode()

    @property
    def number(self) -> int:
        """The last argument."""
        return int(re.findall(r"\d+", self.rest)[-1])


class Event(NamedTuple):
    """A call begins, or it returns."""

    call: Call
    is_end: bool


def strace(path: Path) -> list[str]:
    """Return the command that records what it runs."""
    what = ["-e", f"trace={CALLS}", "-e", "signal=none", "-s", "10000000"]
    return ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-xx", *what, "-o", str(path)]


def read(path: Path, directory: Path) -> Iterator[Event]:
    """Yield what happened to the files of a directory."""
    here = "".join(f"\\x{byte:02x}" for byte in bytes(directory))
    begun: dict[str, Call] = {}
    with path.open() as lines:
        for line in lines:
            process, _, text = line.rstrip().partition(" ")
            if not text.lstrip().startswith("<..."):
                if here not in text:
                    continue
                begun[process] = _parse(text.lstrip())
                yield Event(begun[process], is_end=False)
            if not text.endswith("<unfinished ...>") and process in begun:
                yield Event(begun.pop(process), is_end=True)


def _parse(text: str) -> Call:
    name, _, arguments = _RETURNED.sub("", text).partition("(")
    strings = [bytes.fromhex(quoted.replace("\\x", "")) for quoted in _QUOTED.findall(arguments)]
    return Call(name, strings, _QUOTED.sub("", arguments))
