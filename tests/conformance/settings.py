"""The settings in which Django's tests run; each of them sets TASKS for itself."""

import os
from pathlib import Path

DIR = Path(os.environ["CONFORMANCE_DIR"])
SECRET_KEY = "only for tests"
USE_TZ = True
INSTALLED_APPS = ["snappea"]
DATABASES = {
    alias: {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DIR / f"{alias}.sqlite3",
        "TEST": {"NAME": DIR / f"test-{alias}.sqlite3"},
    }
    for alias in ("default", "snappea")
}
DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SNAPPEA = {"SYNCHRONOUS": "NORMAL", "IN_TESTS": "write"}
# where the tests' own tasks are decorated
TASKS = {"default": {"BACKEND": "snappea.backend.SnappeaBackend"}}
