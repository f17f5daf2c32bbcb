"""Find the tasks that the Foreman does not discover, for the system checks, by parsing modules."""

import ast
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from django.apps import AppConfig, apps
from django.conf import settings

from ..tasks.discovery import failures, is_served, is_test

_DECORATORS = {"task", "shared_task"}
#: The options of @task that need an import of the module. None stands for `**options`.
_AT_START = {"cron", "every", "name", "aliases", None}
_NOT_SEARCHED = {"django", "snappea"}
#: Where statements contain statements.
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


class Undiscovered(NamedTuple):
    """A module with tasks that the Foreman does not discover.

    `app`: its installed app, or "". `bare`: the folder without an `__init__.py`, or "".
    """

    module: str
    tasks: list[str]
    app: str
    bare: str


def undiscovered() -> Iterator[Undiscovered]:
    """Yield the modules with undiscovered tasks, in installed apps and beside the settings.

    The Foreman imports the module of a plain task by its name. But schedules, aliases and custom names are
    unknown until their module is imported, and a folder without `__init__.py` is not a package.
    """
    theirs = [app for app in apps.get_app_configs() if app.name.partition(".")[0] not in _NOT_SEARCHED]
    homes = {os.path.realpath(app.path) for app in theirs}
    for app in theirs:
        if not hasattr(app.module, "__path__"):
            continue  # a single module: its neighbors are not part of the app
        for module, file, bare in _sources(app, homes - {os.path.realpath(app.path)}):
            is_known = module in sys.modules or any(f"{module}.".startswith(f"{name}.") for name in failures)
            if not is_known and (tasks := _tasks_in(file, all_of_them=bool(bare))):
                yield Undiscovered(module, tasks, app.name, bare)
    yield from _beside_settings()


def _beside_settings() -> Iterator[Undiscovered]:
    """Yield the modules with tasks in the settings' package, which often is not an installed app."""
    package = str(getattr(settings, "SETTINGS_MODULE", "")).rpartition(".")[0]
    file = getattr(sys.modules.get(package), "__file__", None)
    if not file or apps.get_containing_app_config(package):
        return
    for path in sorted(Path(file).parent.glob("*.py")):
        module = f"{package}.{path.stem}"
        is_known = is_test(path.stem) or module in sys.modules
        if not is_known and (tasks := _tasks_in(path, all_of_them=True)):
            yield Undiscovered(module, tasks, "", "")


def _sources(app: AppConfig, homes: set[str]) -> Iterator[tuple[str, Path, str]]:
    """Yield name, file and bare folder of the modules in an app. `homes`: the folders of other apps."""
    waiting = [(app.name, app.path, "")]
    while waiting:
        package, folder, bare = waiting.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            continue
        names = [entry.name for entry in entries if entry.name.endswith(".py")]
        if not names or is_served(folder):
            continue  # no code, but static files or millions of uploads
        bare = bare or ("" if "__init__.py" in names else folder)
        for entry in entries:
            stem = entry.name.removesuffix(".py")
            if not stem.isidentifier() or is_test(stem) or stem == "migrations":
                continue
            if entry.name.endswith(".py"):
                yield package if stem == "__init__" else f"{package}.{stem}", Path(entry.path), bare
            elif entry.is_dir() and not entry.is_symlink() and os.path.realpath(entry.path) not in homes:
                waiting.append((f"{package}.{stem}", entry.path, bare))


def _tasks_in(file: Path, all_of_them: bool) -> list[str]:
    """Return the functions that `snappea.task` decorates: all, or those that need an import."""
    try:
        source = file.read_bytes()
        if b"snappea" not in source or b"@" not in source:
            return []
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []  # an import will report it
    names = {f"snappea.{decorator}" for decorator in _DECORATORS}
    statements = _statements(tree)
    for node in statements:
        if isinstance(node, ast.ImportFrom) and node.module in ("snappea", "snappea.tasks"):
            names |= {alias.asname or alias.name for alias in node.names if alias.name in _DECORATORS}
    return [
        node.name
        for node in statements
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if any(_declares(decorator, names, all_of_them) for decorator in node.decorator_list)
    ]


def _statements(tree: ast.Module) -> list[ast.AST]:
    """Return the statements of a module, without their expressions, which are ten times as many."""
    found: list[ast.AST] = [tree]
    for node in found:  # which grows
        for block in _BLOCKS:
            found += getattr(node, block, ())
    return found


def _declares(decorator: ast.expr, names: set[str], whatever_options: bool) -> bool:
    if not isinstance(decorator, ast.Call):
        return whatever_options and ast.unparse(decorator) in names
    has_option = any(keyword.arg in _AT_START for keyword in decorator.keywords)
    return (whatever_options or has_option) and ast.unparse(decorator.func) in names
