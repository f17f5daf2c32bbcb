"""Restores the Task of django.tasks that a row was enqueued with, from its declaration and overrides."""

import json
import sys
from dataclasses import fields
from inspect import getattr_static
from types import ModuleType
from typing import Any

from django.apps import apps
from django.core.signing import BadSignature, Signer

from ..queue.clock import as_datetime, as_text
from ..tasks.discovery import is_served
from .framework import AnyTask, InvalidTask, Task

#: How many restored tasks are cached.
MOST_RESTORED = 1000
_restored: dict[tuple[object, ...], tuple[AnyTask, AnyTask]] = {}
_DJANGOS = frozenset(field.name for field in fields(Task))
_SEAL = "snappea.django_tasks.module"
_EXCEPTIONS = ("autoretry_for", "dont_autoretry_for")


def declared(name: str) -> AnyTask | None:
    """Return the Task of a name, if a loaded module declares one."""
    found = _loaded(name)
    return found if isinstance(found, Task) else None


def _loaded(path: str) -> Any:
    """Return the object of a dotted path in a loaded module; None if there is none.

    The path may come from a row, so this runs no code such as a module's `__getattr__` or a property.
    """
    names = path.split(".")
    for count in range(len(names) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(names[:count]))
        if isinstance(found, ModuleType):
            for attribute in names[count:]:
                is_plain = type(found) is ModuleType  # getattr_static() takes ten times as long
                found = vars(found).get(attribute) if is_plain else getattr_static(found, attribute, None)
            return found
    return None


def seal_of(name: str) -> dict[str, str]:
    """Return what lets the Foreman import a task's module although no installed app holds it: a signature.

    Only a process that knows SECRET_KEY and was handed the task can make it. There is none for uploads.
    """
    module = name.rpartition(".")[0]
    file = getattr(sys.modules.get(module), "__file__", None)
    if apps.get_containing_app_config(name) or not file or is_served(file):
        return {}
    return {_SEAL: Signer(salt=_SEAL).sign(module)}


def is_sealed(name: str, overrides: str | None) -> bool:
    """Tell whether the overrides of a row have the seal of a task's module."""
    try:
        module: str = Signer(salt=_SEAL).unsign(json.loads(overrides or "{}").get(_SEAL, ""))
        return module == name.rpartition(".")[0]
    except (AttributeError, BadSignature, TypeError, ValueError):
        return False


def overrides_of(task: AnyTask, original: AnyTask | None, seal: dict[str, str]) -> str | None:
    """Return, as JSON, what differs from the task's declaration and has no column of its own, and the seal.

    Raises InvalidTask if the Foreman would not find this task.
    """
    if original is task:
        return json.dumps(seal) if seal else None
    if original is None or original.func is not task.func:
        raise InvalidTask(
            f"{task.module_path} is not this task, so the Foreman would not find it. Decorate the function "
            "where it is defined."
        )
    found: dict[str, Any] = dict(seal)
    if task.run_after is not None:
        found["run_after"] = as_text(task.run_after)
    for name in (field.name for field in fields(task) if field.name not in _DJANGOS):
        value = getattr(task, name)
        if value != getattr(original, name, None):
            if name in _EXCEPTIONS and isinstance(value, (tuple, list)):
                found[name] = [f"{kind.__module__}.{kind.__qualname__}" for kind in value]
            elif value is None or isinstance(value, (str, int, float)):
                found[name] = value  # others matter only for writing the row
    return json.dumps(found) if found else None


def restored(name: str, alias: str, queue_name: str, priority: int, overrides: str | None) -> AnyTask | None:
    """Return the Task of a row as it was enqueued, not validated: the code may have changed since."""
    original = declared(name)
    if original is None:
        return None
    key = name, alias, queue_name, priority, overrides
    found = _restored.get(key)
    if found is None or found[0] is not original:
        if len(_restored) >= MOST_RESTORED:
            _restored.clear()
        theirs = {"backend": alias, "queue_name": queue_name, "priority": priority}
        found = _restored[key] = original, _restore(original, theirs, json.loads(overrides or "{}"))
    return found[1]


def _restore(original: AnyTask, theirs: dict[str, Any], written: dict[str, Any]) -> AnyTask:
    values = {field.name: getattr(original, field.name) for field in fields(original)}
    if "run_after" in written:
        written["run_after"] = as_datetime(written["run_after"])
    for key in written.keys() & set(_EXCEPTIONS):
        # only loaded ones: a row must not cause an import
        kinds = map(_loaded, written[key])
        written[key] = tuple(
            kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseException)
        )
    changed = values | theirs | {key: value for key, value in written.items() if key in values}
    return original if changed == values else set_fields(object.__new__(type(original)), **changed)


def set_fields(frozen: Any, **values: Any) -> Any:
    """Change a frozen dataclass, and return it."""
    for name, value in values.items():
        object.__setattr__(frozen, name, value)
    return frozen
