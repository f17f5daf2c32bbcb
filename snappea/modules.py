"""Which modules may be imported for a task's name."""

from importlib import import_module

from django.apps import apps

from .errors import UnknownTask


def load_module_of(name: str) -> None:
    """Import the module of a task, if it lies inside an installed app. Raises UnknownTask if it raises."""
    if apps.get_containing_app_config(name):
        module = name.rpartition(".")[0]
        try:
            import_module(module)  # waits, if another thread is importing it
        except Exception as error:
            raise UnknownTask(f"Unknown task {name!r}: importing {module} raised {error!r}.") from error
