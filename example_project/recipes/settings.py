"""The settings of the recipes: those of the example project, with databases of their own."""

from example_project.settings import *  # noqa: F403
from example_project.settings import DATA_DIR, DATABASES, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "example_project.recipes"]
for name, database in DATABASES.items():
    database["NAME"] = DATA_DIR / f"recipes-{name}.sqlite3"

SNAPPEA = {
    "NUM_WORKERS": 4,
    "HOOK_ADD_TASK_KWARGS": "example_project.recipes.hooks.add_kwargs",
    "HOOK_RUN_TASK_CONTEXT": "example_project.recipes.hooks.run_context",
}
