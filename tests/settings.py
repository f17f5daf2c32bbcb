"""The project in which the tests run; its files lie in $SNAPPEA_TEST_DIR."""

import gc
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from django import VERSION

FRAMEWORK = "django.tasks" if VERSION >= (6, 0) else "django_tasks"
DIR = Path(os.environ.get("SNAPPEA_TEST_DIR") or tempfile.mkdtemp(prefix="snappea-tests-"))
DEBUG = False
SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["127.0.0.1", "testserver"]
USE_TZ = True
TIME_ZONE = "UTC"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "snappea",
    "tests.playground",
    "example_project.tracker",
    *os.environ.get("SNAPPEA_TEST_APPS", "").split(),
]
ROOT_URLCONF = "tests.urls"
TEMPLATES: list[dict[str, Any]] = [
    {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}
]
if "pytest" not in sys.modules:  # the processes that tests start are to start sooner
    gc.set_threshold(20_000)
if "pytest" in sys.modules or "SNAPPEA_TEST_ADMIN" in os.environ:  # most of them need no admin either
    INSTALLED_APPS += ["django.contrib.admin", "django.contrib.messages", "django.contrib.sessions"]
    INSTALLED_APPS += ["django.contrib.staticfiles"]
    INSTALLED_APPS += [] if VERSION >= (6, 0) else ["django_tasks"]
    LOGGING = {  # no mail to ADMINS for each bad request
        "version": 1,
        "disable_existing_loggers": False,
        "loggers": {"django": {"handlers": []}},
    }
    PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the others take long on purpose
    MIDDLEWARE = [
        "tests.middleware.strict_policy",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ]
    STATIC_URL = "static/"
    TEMPLATES[0]["OPTIONS"] = {
        "context_processors": [
            "django.template.context_processors.request",
            "django.contrib.auth.context_processors.auth",
            "django.contrib.messages.context_processors.messages",
        ]
    }
DSN_KEYS = {1: "a-key"}
ADMINS = ["admin@localhost"] if VERSION >= (6, 0) else [("The admin", "admin@localhost")]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES: dict[str, dict[str, Any]] = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DIR / "default.sqlite3"},
    "snappea": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SNAPPEA_TEST_DATABASE") or DIR / "snappea.sqlite3",
    },
}
if "SNAPPEA_TEST_QUEUE" in os.environ:  # the queue's database is PostgreSQL
    DATABASES["snappea"] = json.loads(os.environ["SNAPPEA_TEST_QUEUE"])
if "SNAPPEA_TEST_OTHER" in os.environ:  # where the queue can move to
    DATABASES["other"] = json.loads(os.environ["SNAPPEA_TEST_OTHER"])
DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]
TASKS = {
    "default": {"BACKEND": "snappea.backend.SnappeaBackend", "QUEUES": []},
    "short": {
        "BACKEND": "tests.playground.djangotasks.ShortBackend",
        "QUEUES": [],
        "OPTIONS": {"RESULT_TTL": 1, "max_retries": 1, "AUTORETRY_FOR": [KeyError], "default_retry_delay": 0},
    },
    "fleeting": {"BACKEND": "snappea.backend.SnappeaBackend", "OPTIONS": {"RESULT_TTL": None}},
    "uuids": {"BACKEND": "snappea.backend.SnappeaBackend", "QUEUES": [], "OPTIONS": {"UUIDS": True}},
    "other": {"BACKEND": f"{FRAMEWORK}.backends.immediate.ImmediateBackend"},
}
SNAPPEA = {"IN_TESTS": "write"} | json.loads(os.environ.get("SNAPPEA_TEST_SETTINGS", "{}"))

if os.environ.get("SNAPPEA_TEST_LOGGING") == "broken":
    LOGGING = {
        "version": 1,
        "handlers": {"broken": {"class": "tests.playground.broken_logging.BrokenHandler"}},
        "root": {"handlers": ["broken"], "level": "DEBUG"},
    }
