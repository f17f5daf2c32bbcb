"""The processes that are forked for tests are as if they had been executed."""

import json
import signal

import pytest

from tests.site import DEADLINE, Process, Site

TELL = """
import json, os, threading
from django.conf import settings
descriptors = [int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]
told = {
    "module": __name__, "argv": sys.argv, "path": sys.path, "variables": dict(os.environ),
    "orig_argv": sys.orig_argv, "cwd": os.getcwd(), "descriptors": descriptors,
    "threads": threading.active_count(), "settings": settings.SNAPPEA,
    "signals": [repr(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)],
}
print(json.dumps(told))
sys.exit(3)
"""


def test_they_are_as_if_executed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.settings["NUM_WORKERS"] = 7
    code = f"import signal\n{TELL}"
    forked = site.program(code, "x")
    monkeypatch.setattr(Process, "warm", None)
    executed = site.program(code, "x")
    assert (forked.wait(), executed.wait()) == (3, 3)
    assert type(forked.popen) is not type(executed.popen)
    one, other = json.loads(forked.output()), json.loads(executed.output())
    assert one == other and one["settings"]["NUM_WORKERS"] == 7


def test_their_ends_are_known(site: Site) -> None:
    assert site.program("1 / 0").wait() == 1
    assert "ZeroDivisionError" in site.processes[-1].output()
    sleeper = site.program("import time\nprint('here')\ntime.sleep(600)")
    sleeper.wait_for_output("here")
    assert sleeper.popen.poll() is None
    sleeper.kill()
    assert sleeper.popen.returncode == -signal.SIGKILL
    assert site.manage("check", SYNCHRONOUS="never").wait() == 1
    assert "snappea.E001" in site.processes[-1].output()
    assert site.program("import os\nos.execv('/bin/sh', ['sh', '-c', 'exit 4'])").popen.wait(DEADLINE) == 4


def test_an_interpreter_with_variables_of_its_own_is_executed(site: Site) -> None:
    site.variables["PYTHONOPTIMIZE"] = "1"
    process = site.program("print(sys.flags.optimize)")
    assert (process.wait(), process.output()) == (0, "1\n")
