"""The settings of the shop. $SHOP_DIR: its directory; $SHOP_THEME: an app with templates for the admin."""

import os
from pathlib import Path

DIR = Path(os.environ["SHOP_DIR"])
DEBUG = True
SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "Europe/Berlin"
INSTALLED_APPS = [
    *os.environ.get("SHOP_THEME", "").split(),
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "snappea",
    "tests.admin.shop",
]
ROOT_URLCONF = "tests.admin.shop.urls"
MIDDLEWARE = [
    "tests.middleware.strict_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
if "SHOP_THEME" in os.environ:  # the themes have inline scripts
    MIDDLEWARE = MIDDLEWARE[1:]
STATIC_URL = "static/"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_THOUSAND_SEPARATOR = True
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DIR / "shop.sqlite3"},
    "snappea": {"ENGINE": "django.db.backends.sqlite3", "NAME": DIR / "snappea.sqlite3"},
}
DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]
LOGGING = {"version": 1, "disable_existing_loggers": False, "root": {"level": "INFO"}}  # for keep_log
_NUMBERS = {"task": "tests.admin.shop.tasks.count_orders", "args": [2026, 11]}
SCHEDULES = [
    {**_NUMBERS, "cron": "0 3 * * mon", "timezone": "Europe/Amsterdam", "name": "numbers of the week"},
    {**_NUMBERS, "cron": "*/10 8-18 * * *", "name": "numbers of the day"},
]
SNAPPEA = {
    "NUM_WORKERS": 6,
    "SYNCHRONOUS": "NORMAL",
    "SCHEDULES": SCHEDULES,
    "GRACEFUL_TIMEOUT": 0.1,  # some of its tasks run for long
}
