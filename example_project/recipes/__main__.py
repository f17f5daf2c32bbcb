"""Run recipes: `python -m example_project.recipes NAME`, with a Foreman unless one runs already."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import getdoc
from pathlib import Path

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "example_project.recipes.settings"
django.setup()

from django.core.management import call_command  # noqa: E402

from example_project.recipes import tasks  # noqa: E402
from snappea import stats  # noqa: E402

RECIPES = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
RECIPES = [name for name in RECIPES if hasattr(tasks, name)]


def main() -> None:
    """Run the named recipes, or list all of them."""
    names = sys.argv[1:]
    if unknown := set(names) - set(RECIPES):
        sys.exit(f"There is no recipe {', '.join(sorted(unknown))}. There are: {', '.join(RECIPES)}.")
    if not names:
        for name in RECIPES:
            print(f"{name:14} {(getdoc(getattr(tasks, name)) or '').splitlines()[0]}")
        return
    for alias in ("default", "snappea"):
        call_command("migrate", database=alias, verbosity=0)
    with foreman():
        for name in names:
            import_module(f"example_project.recipes.{name}").show()


@contextmanager
def foreman() -> Iterator[None]:
    """Keep a Foreman running for as long as the block runs."""
    if stats.snapshot()["foremen"]:
        yield
        return
    command = [sys.executable, "-m", "django", "runsnappea", "--no-reload", "-v", "0"]
    process = subprocess.Popen(command)
    try:
        while not stats.snapshot()["foremen"] and process.poll() is None:
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


main()
