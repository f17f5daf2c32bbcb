"""Fetch Django's tests, put our backends in the place of its own, and run them."""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path

import django

ROOT = Path(__file__).parent.parent.parent
CACHE = ROOT / ".conformance"
OURS = "tests.conformance.backends"
#: Dotted paths, and what takes their place.
SUBSTITUTES = {
    "django.tasks.backends.dummy.DummyBackend": f"{OURS}.QueueingBackend",
    "django.tasks.backends.immediate.ImmediateBackend": f"{OURS}.DrainingBackend",
    "from django.tasks.backends.dummy import DummyBackend": (
        f"from {OURS} import QueueingBackend as DummyBackend"
    ),
    "from django.tasks.backends.immediate import ImmediateBackend": (
        f"from {OURS} import DrainingBackend as ImmediateBackend"
    ),
}


def fetch(version: str) -> Path:
    """Return Django's source distribution, downloaded if it is not there yet."""
    home = CACHE / version
    if not (found := list(home.glob("*.tar.gz"))):
        home.mkdir(parents=True, exist_ok=True)
        command = ["-m", "pip", "download", "-q", "--no-binary", ":all:", "--no-deps", f"Django=={version}"]
        subprocess.run([sys.executable, *command, "-d", str(home)], check=True)
        found = list(home.glob("*.tar.gz"))
    return found[0]


def substitute(archive: Path, directory: Path) -> None:
    """Write Django's tests/tasks, as they run against our backends, into a directory."""
    with tarfile.open(archive) as sources:
        for member in sources:
            file = re.fullmatch(r"[^/]+/tests/(tasks/\w+\.py)", member.name)
            content = sources.extractfile(member) if file else None
            if file and content:
                text = content.read().decode()
                for theirs, ours in SUBSTITUTES.items():
                    text = text.replace(theirs, ours)
                target = directory / file[1]
                target.parent.mkdir(exist_ok=True)
                target.write_text(text)


def run() -> int:
    """Run them; return how many did not pass, or are excluded and not there."""
    from django.test import SimpleTestCase, TransactionTestCase
    from django.test.runner import DiscoverRunner

    from .excluded import EXCLUDED

    # Django's backends store nothing, so its tests allow themselves no database
    SimpleTestCase.databases = TransactionTestCase.databases = {"default", "snappea"}

    class Runner(DiscoverRunner):
        def build_suite(self, *args: object, **kwargs: object) -> unittest.TestSuite:
            tests = list(_each(super().build_suite(["tasks"])))
            found = {test.id() for test in tests}
            for name in EXCLUDED.keys() - found:
                raise SystemExit(f"{name} is excluded, but Django {django.__version__} has no such test.")
            for name, reason in EXCLUDED.items():
                print(f"left out: {name}: {reason}")
            return unittest.TestSuite(test for test in tests if test.id() not in EXCLUDED)

    return Runner(interactive=False).run_tests(["tasks"])


def _each(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _each(test)
        else:
            yield test


def main() -> int:
    """Return 0 if all that is not excluded passes."""
    if django.VERSION < (6, 0):
        print(f"Django {django.__version__} has no django.tasks, and no tests of it.")
        return 1
    with tempfile.TemporaryDirectory(prefix="snappea-conformance-") as directory:
        substitute(fetch(django.__version__), Path(directory))
        sys.path.insert(0, directory)
        os.environ |= {"DJANGO_SETTINGS_MODULE": "tests.conformance.settings", "CONFORMANCE_DIR": directory}
        django.setup()
        return 1 if run() else 0


if __name__ == "__main__":
    sys.exit(main())
