"""Finds tasks: which modules the Foreman imports at start, and which ones a row may name."""

import os
import pkgutil
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from django.apps import apps
from django.conf import settings
from django.utils.module_loading import import_string, module_has_submodule

from ..conf import current
from ..errors import ConfigurationError, TaskDefinitionError, UnknownTask
from ..queue.records import Claim
from . import frameworks
from .function import TaskFunction, registry

#: How much of the traceback of a failed import is kept, in characters.
MAX_TRACEBACK = 8000


class Failure(NamedTuple):
    """Why a module could not be imported. `is_definition`: because of an invalid `@task`."""

    reason: str
    traceback: str
    is_definition: bool


#: The task modules that could not be imported, and why.
failures: dict[str, Failure] = {}
#: The modules that are being imported now because a row names them.
_importing: list[str] = []


# at start


def import_task_modules() -> None:
    """Import the `tasks` module or package of each installed app, and the modules that SCHEDULES names.

    A module that raises is recorded in `failures`, and not imported again.
    """
    for app in apps.get_app_configs():
        if app.module is not None and module_has_submodule(app.module, "tasks"):
            _import_tree(f"{app.name}.tasks")
    for name in _scheduled():
        module = name.rpartition(".")[0]
        if apps.get_containing_app_config(name) and (module in sys.modules or _locate(module)[0]):
            _import(module)


def load_frameworks() -> None:
    """Import the backends that TASKS names: Snappea's adds itself to `snappea.tasks.frameworks`."""
    for configured in getattr(settings, "TASKS", {}).values():
        with suppress(Exception):  # the system checks report it
            import_string(configured["BACKEND"])


def _scheduled() -> list[str]:
    try:
        return [entry["task"] for entry in current().SCHEDULES]
    except ConfigurationError:  # the system checks report it
        return []


def _import_tree(name: str) -> None:
    """Import a module and, if it is a package with an `__init__.py`, its submodules except tests."""
    module = _import(name)
    if module is None or not getattr(module, "__file__", None):
        return
    for _finder, part, _is_package in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if part != "__main__" and not is_test(part):
            _import_tree(f"{name}.{part}")


def is_test(name: str) -> bool:
    """Tell by a module's own name whether it contains tests."""
    return name in ("tests", "conftest") or name.startswith("test_")


def _import(name: str) -> ModuleType | None:
    if name in failures:
        return None
    try:
        return import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # even SystemExit in one app must not stop the others
        text = "".join(traceback.format_exception(error))[-MAX_TRACEBACK:]
        failures[name] = Failure(repr(error), text, isinstance(error, TaskDefinitionError))
        return None


# for a row


def import_module_of(name: str, is_sealed: bool = False) -> None:
    """Import the module of a task because a row names it. Only the Foreman does so.

    The module must be in a regular package (each folder has an `__init__.py`) of an installed app, and not
    where uploads are stored. `is_sealed`: a process that had it loaded vouches for it. Raises UnknownTask if
    it cannot be imported.
    """
    require_imported(name)
    module = name.rpartition(".")[0]
    file, is_regular = _locate(module)
    if not is_sealed and (not is_regular or is_served(file)):
        return
    _importing.append(module)
    try:
        import_module(module)  # waits if another thread is importing it
    except Exception as error:
        raise UnknownTask(f"Unknown task {name!r}: importing {module} raised {error!r}.") from error
    finally:
        _importing.remove(module)


def wait_for_import(module: str) -> None:
    """Wait until another thread has finished importing a module: its tasks may need its last lines."""
    if _importing and module in sys.modules:
        import_module(module)


def require_imported(name: str) -> None:
    """Raise UnknownTask, with the reason, if the module of a task could not be imported."""
    module = name
    while module := module.rpartition(".")[0]:
        if failure := failures.get(module):
            raise UnknownTask(f"Unknown task {name!r}: importing {module} raised {failure.reason}.")


def _locate(module: str) -> tuple[str, bool]:
    """Return the file of a module of an installed app, without importing it; "" if there is none.

    Also return whether it is in a regular package: each folder from the app on has an `__init__.py`.
    """
    app = apps.get_containing_app_config(module)
    if app is None or app.module is None:
        return "", False
    package, file = app.name, app.module.__file__ or ""
    is_regular, folders = bool(file), list(getattr(app.module, "__path__", ()))
    for part in module[len(package) :].split(".")[1:]:
        package = f"{package}.{part}"
        spec = PathFinder.find_spec(package, folders) if folders else None
        if spec is None:
            return "", False
        folders, file = list(spec.submodule_search_locations or ()), spec.origin or ""
        is_regular = is_regular and bool(file)
    return file, is_regular


def is_served(file: str) -> bool:
    """Tell whether a file is below MEDIA_ROOT or STATIC_ROOT."""
    roots = [str(root) for root in (settings.MEDIA_ROOT, settings.STATIC_ROOT) if root]
    return any(Path(os.path.realpath(file)).is_relative_to(os.path.realpath(root)) for root in roots)


# from a name to a task


def discover() -> None:
    """Import the task modules of all installed apps; those that raise are recorded in `failures`."""
    load_frameworks()
    import_task_modules()
    if not failures:
        return
    for name, made in list(registry.items()):
        if made.function.__module__ in failures and made.function.__module__ not in sys.modules:
            del registry[name]  # declared by a module that then raised


def resolve(name: str) -> TaskFunction[..., Any]:
    """Return the task of a name: a @task, or a Task of Snappea's django.tasks backend.

    Imports nothing. Raises UnknownTask.
    """
    found = registry.get(name) or next((found for each in frameworks if (found := each.find(name))), None)
    if found is None:
        require_imported(name)
        raise UnknownTask(
            f"Unknown task {name!r}: no installed app declares a @task of that name. If it was renamed, add "
            "the old name to its aliases. If it is not deployed yet, requeue this task after the deploy."
            + (f" These modules could not be imported: {', '.join(failures)}." if failures else "")
        )
    return found


def load(name: str) -> TaskFunction[..., Any]:
    """Return the task of a name; import its module if necessary and allowed. Raises UnknownTask.

    For the Foreman, and for names that are typed on the command line.
    """
    if (found := registry.get(name)) is None:
        import_module_of(name)
        return resolve(name)
    wait_for_import(found.function.__module__)
    return found


def task_of(claim: Claim) -> TaskFunction[..., Any]:
    """Return the task of a claim. Raises UnknownTask."""
    if claim.extras_json is None or (origin := claim.extras.origin) is None:
        return load(claim.task_name)
    if not frameworks:
        load_frameworks()
    for framework in frameworks:
        return framework.find_claimed(claim, origin)
    raise UnknownTask(
        f"Unknown task {claim.task_name!r}: TASKS no longer has a Snappea backend {origin.backend!r}."
    )


def find_task_of(claim: Claim) -> TaskFunction[..., Any] | None:
    """Return the task of a claim; None if it is unknown or importing its module raised anything."""
    try:
        return task_of(claim)
    except BaseException:
        return None


def find(name: str, may_import: bool = False) -> TaskFunction[..., Any] | None:
    """Return the task of a name; None if it is unknown or importing its module raised anything.

    `may_import`: import its module as load() does; only for the Foreman.
    """
    try:
        return registry.get(name) or (load if may_import else resolve)(name)
    except BaseException:
        return None
