"""The settings of the tests, with Celery as the engine."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import FRAMEWORK, INSTALLED_APPS, SNAPPEA

INSTALLED_APPS = [*INSTALLED_APPS, "tests.proj"]
SNAPPEA = {**SNAPPEA, "ENGINE": "celery"}
TASKS = {"default": {"BACKEND": f"{FRAMEWORK}.backends.dummy.DummyBackend"}}
CELERY_BROKER_URL = os.environ.get("SNAPPEA_TEST_BROKER", "redis://127.0.0.1:1/0")
CELERY_RESULT_BACKEND = os.environ.get("SNAPPEA_TEST_RESULTS") or None
CELERY_BEAT_SCHEDULE_FILENAME = os.environ.get("SNAPPEA_TEST_DIR", ".") + "/beat"
