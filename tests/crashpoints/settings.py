"""The settings of the life: only its own tasks, so that no fork server is needed."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS as _APPS

INSTALLED_APPS = [app for app in _APPS if not app.startswith(("tests.", "example_project."))]
INSTALLED_APPS += ["tests.crashpoints"]
del TASKS  # noqa: F821  # those of tests.settings name a backend of the playground
