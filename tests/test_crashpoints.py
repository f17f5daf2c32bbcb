"""A fault at some points of a life; `python -m tests.crashpoints --all` tries each."""

import re
import subprocess
import sys

import pytest

from tests.crashpoints import kernel
from tests.site import ROOT

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not kernel.IS_SUPPORTED, reason="NOT TRIED: this needs Linux on x86-64"),
]


PLANTED = """
import sys
from snappea.queue.logbook import Logbook
Logbook.note = lambda *_: None
from tests.crashpoints.__main__ import main
sys.exit(main())
"""


def run(*arguments: str, program: tuple[str, str] = ("-m", "tests.crashpoints")) -> tuple[int, str]:
    """Run the command, and return its exit code and its output."""
    command = [sys.executable, *program, *arguments, "--jobs", "2", "--synchronous", "FULL"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(("kinds", "every"), [("kills", "90"), ("lines", "400"), ("errors", "400")])
def test_a_fault_at_some_points(kinds: str, every: str) -> None:
    """After a kill, or an error of the system, all promises are kept."""
    code, output = run("--kinds", kinds, "--every", every, "--first", "13")
    assert code == 0, output
    reached = re.match(r"(\d+) of (\d+) points", output)
    assert reached and int(reached[1]) >= 5, output


def test_errors_that_were_mistaken_for_others() -> None:
    """A deleted database that was there, and tracebacks."""
    foreman = ("socketpair=EMFILE/1", "newfstatat=EIO/21", "newfstatat=EIO/31", "newfstatat=EACCES/33")
    enqueuer = ("openat=EIO/1", "pwrite64=EIO/10")
    code, output = run(
        *(f"FULL/foreman/{fault}" for fault in foreman), *(f"FULL/enqueuer/{fault}" for fault in enqueuer)
    )
    assert code == 0, output


def test_a_broken_promise_is_noticed() -> None:
    """A Foreman that does not note which tasks have begun runs some of them twice."""
    code, output = run("--kinds", "kills", "--every", "120", "--targets", "foreman", program=("-c", PLANTED))
    assert code == 1 and re.search("I2: started 2 times", output), output
