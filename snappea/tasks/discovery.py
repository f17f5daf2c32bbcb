"""Which modules hold tasks: what is imported at the start, what a row may name, and what is missed."""

import ast
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from django.apps import AppConfig, apps
from django.conf import settings
from django.utils.module_loading import import_string, module_has_submodule

from ..conf import current
from ..errors import ConfigurationError, TaskDefinitionError, UnknownTask

#: The most that is kept of the traceback of a failed import, in characters.
MAX_TRACEBACK = 8000
_DECORATORS = {"task", "shared_task"}
_HOMES = {"snappea", "snappea.tasks"}
#: The options of @task that mean nothing until the module is imported; None: `**options`.
_AT_START = {"cron", "every", "name", "aliases", None}
_NOT_SEARCHED = {"django", "snappea"}


class Failure(NamedTuple):
    """Why a module could not be imported. `is_definition`: a `@task` in it makes no sense."""

    reason: str
    traceback: str
    is_definition: bool


class Undiscovered(NamedTuple):
    """A module with tasks that the Foreman does not find.

    `app`: the installed app that has it, or "". `bare`: the folder that lacks an `__init__.py`, or "".
    """

    module: str
    tasks: list[str]
    app: str
    bare: str


#: The task modules that could not be imported, and why.
failures: dict[str, Failure] = {}
#: What is being imported at this moment because a row names it.
_importing: list[str] = []


# at the start


def import_task_modules() -> None:
    """Import the `tasks` module or package of each installed app, and the modules that SCHEDULES names.

    A module that raises is entered in `failures`, and not tried again.
    """
    for app in apps.get_app_configs():
        if app.module is not None and module_has_submodule(app.module, "tasks"):
            _import_tree(f"{app.name}.tasks")
    for name in _scheduled():
        module = name.rpartition(".")[0]
        if apps.get_containing_app_config(name) and _can_find(module):
            _import(module)


def load_frameworks() -> None:
    """Import the backends that TASKS names: one of ours adds itself to `snappea.tasks.frameworks`."""
    for configured in getattr(settings, "TASKS", {}).values():
        with suppress(Exception):  # the system checks report it
            import_string(configured["BACKEND"])


def _scheduled() -> list[str]:
    try:
        return [entry["task"] for entry in current().SCHEDULES]
    except ConfigurationError:  # the system checks report it
        return []


def _import_tree(name: str) -> None:
    """Import a module and, if it is a package with an `__init__.py`, its submodules; tests are left out."""
    module = _import(name)
    if module is None or not getattr(module, "__file__", None):
        return
    for _finder, part, _is_package in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if part != "__main__" and not is_test(part):
            _import_tree(f"{name}.{part}")


def is_test(name: str) -> bool:
    """Tell whether a module's own name says that it is for tests."""
    return name in ("tests", "conftest") or name.startswith("test_")


def _import(name: str) -> ModuleType | None:
    if name in failures:
        return None
    try:
        return import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # even a SystemExit of one app must not stop all the others
        text = "".join(traceback.format_exception(error))[-MAX_TRACEBACK:]
        failures[name] = Failure(repr(error), text, isinstance(error, TaskDefinitionError))
        return None


# for a row


def import_module_of(name: str) -> None:
    """Import the module of a task because a row names it. Only the Foreman does so.

    The module must lie in a regular package (each folder has an `__init__.py`) of an installed app, and not
    where uploads go. Raises UnknownTask if it cannot be imported.
    """
    require_imported(name)
    module = name.rpartition(".")[0]
    if not _is_in_regular_package(module):
        return
    _importing.append(module)
    try:
        import_module(module)  # waits, if another thread is importing it
    except Exception as error:
        raise UnknownTask(f"Unknown task {name!r}: importing {module} raised {error!r}.") from error
    finally:
        _importing.remove(module)


def wait_for_import(module: str) -> None:
    """Wait until a module that another thread imports because of a row is complete.

    Its first tasks are known before its last line has run, and may need what is there.
    """
    if _importing and module in sys.modules:
        import_module(module)


def require_imported(name: str) -> None:
    """Raise UnknownTask, with the reason, if the module of a task could not be imported."""
    module = name
    while module := module.rpartition(".")[0]:
        if failure := failures.get(module):
            raise UnknownTask(f"Unknown task {name!r}: importing {module} raised {failure.reason}.")


def _can_find(module: str) -> bool:
    return module in sys.modules or _locate(module) is not None


def _is_in_regular_package(module: str) -> bool:
    place = _locate(module)
    return place is not None and not place.bare and not _is_served(place.file)


class _Place(NamedTuple):
    """Where a module of an installed app lies. `bare`: the first folder above it without `__init__.py`."""

    file: str
    bare: str


def _locate(module: str) -> _Place | None:
    """Find a module below an installed app, without importing anything; None if there is none."""
    app = apps.get_containing_app_config(module)
    if app is None or app.module is None:
        return None
    package = app.name
    bare = "" if app.module.__file__ else app.path
    file, folders = app.module.__file__ or "", list(getattr(app.module, "__path__", ()))
    for part in module[len(package) :].split(".")[1:]:
        package = f"{package}.{part}"
        spec = PathFinder.find_spec(package, folders) if folders else None
        if spec is None:
            return None
        folders = list(spec.submodule_search_locations or ())
        file = spec.origin or ""
        bare = bare or ("" if file else folders[0])
    return _Place(file, bare) if file else None


def _is_served(file: str) -> bool:
    """Tell whether a file lies where uploads and collected files go."""
    roots = [str(root) for root in (settings.MEDIA_ROOT, settings.STATIC_ROOT) if root]
    return any(Path(os.path.realpath(file)).is_relative_to(os.path.realpath(root)) for root in roots)


# for the system checks


def undiscovered() -> Iterator[Undiscovered]:
    """Yield the modules of installed apps with tasks that the Foreman does not find; by their text alone.

    A row of a plain task has its module imported. But a schedule, an alias or a name of its own is only known
    once the module is imported, and a folder without `__init__.py` is no package.
    """
    theirs = [app for app in apps.get_app_configs() if app.name.partition(".")[0] not in _NOT_SEARCHED]
    homes = {os.path.realpath(app.path) for app in theirs}
    for app in theirs:
        if not hasattr(app.module, "__path__"):
            continue  # an app that is a single module, beside others that are not its own
        for module, file, bare in _sources(app, homes - {os.path.realpath(app.path)}):
            if module in sys.modules or _is_below_failure(module):
                continue
            if tasks := _tasks_in(file, all_of_them=bool(bare)):
                yield Undiscovered(module, tasks, app.name, bare)
    yield from _beside_settings()


def _beside_settings() -> Iterator[Undiscovered]:
    """Yield the modules with tasks in the package of the settings, which often is no installed app."""
    package = str(getattr(settings, "SETTINGS_MODULE", "")).rpartition(".")[0]
    file = getattr(sys.modules.get(package), "__file__", None)
    if not file or apps.get_containing_app_config(package):
        return
    for entry in _entries(os.path.dirname(file)):
        module = f"{package}.{entry.name.removesuffix('.py')}"
        if not entry.name.endswith(".py") or is_test(entry.name) or module in sys.modules:
            continue
        if tasks := _tasks_in(entry.path, all_of_them=True):
            yield Undiscovered(module, tasks, "", "")


def _is_below_failure(module: str) -> bool:
    return any(f"{module}.".startswith(f"{failed}.") for failed in failures)


def _sources(app: AppConfig, homes: set[str]) -> Iterator[tuple[str, str, str]]:
    """Yield name, file and bare folder of the modules below an app; `homes`: where other apps begin."""
    waiting = [(app.name, app.path, "")]
    while waiting:
        package, folder, bare = waiting.pop()
        entries = sorted(_entries(folder), key=lambda entry: entry.name)
        names = [entry.name for entry in entries if entry.name.endswith(".py")]
        if not names or _is_served(folder):
            continue  # no code: static files, or millions of uploads
        bare = bare or ("" if "__init__.py" in names else folder)
        for entry in entries:
            stem = entry.name.removesuffix(".py")
            if not stem.isidentifier() or is_test(stem) or stem == "migrations":
                continue
            if entry.name.endswith(".py"):
                name = package if stem == "__init__" else f"{package}.{stem}"
                yield name, entry.path, bare
            elif entry.is_dir() and not entry.is_symlink() and os.path.realpath(entry.path) not in homes:
                waiting.append((f"{package}.{stem}", entry.path, bare))


def _entries(folder: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []


def _tasks_in(file: str, all_of_them: bool) -> list[str]:
    """Return the functions that `snappea.task` decorates: all, or those that must be known at the start."""
    try:
        source = Path(file).read_bytes()
        if b"snappea" not in source or b"@" not in source:
            return []
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []  # whoever imports it will hear of that
    names = _names_of_decorator(tree)
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [
        function.name
        for function in functions
        for decorator in function.decorator_list
        if _dotted(decorator) in names and (all_of_them or _needs_start(decorator))
    ]


def _needs_start(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and any(word.arg in _AT_START for word in decorator.keywords)


def _names_of_decorator(tree: ast.Module) -> set[str]:
    """Return what `snappea.task` is called in a module."""
    names = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and not node.level
            and node.module in ("snappea", "snappea.tasks")
        ):
            names |= {alias.asname or alias.name for alias in node.names if alias.name in _DECORATORS}
        elif isinstance(node, ast.Import):
            ours = [alias.asname or alias.name for alias in node.names if alias.name == "snappea"]
            names |= {f"{module}.{decorator}" for module in ours for decorator in _DECORATORS}
    return names


def _dotted(node: ast.expr) -> str:
    """Return a decorator as it is written, without the arguments of its call."""
    return ast.unparse(node.func if isinstance(node, ast.Call) else node)
