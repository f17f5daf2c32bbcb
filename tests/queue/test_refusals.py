"""The error of delay() in a process that can no longer import the modules that explain it."""

from tests.site import Site

CODE = """
import os, resource
from contextlib import suppress
from snappea.errors import EnqueueError

_soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (30, hard))
taken = []
with suppress(OSError):
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
refused = None
try:
    nothing.delay()
except EnqueueError as error:
    refused = error
for descriptor in taken:
    os.close(descriptor)
print("refused:", refused)
nothing.delay()
"""


def test_too_many_open_files_are_an_enqueue_error(site: Site) -> None:
    process = site.program(CODE)
    assert process.wait() == 0, process.output()
    assert "refused: tests.playground.tasks.nothing was not enqueued" in process.output()
    assert "Too many open files" in process.output()
    assert site.counts() == {"ready": 1}
