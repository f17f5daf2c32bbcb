"""What gunicorn serves: `gunicorn example_project.wsgi`."""

import os

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")

# on a real site the web server serves the static files of the admin
application = StaticFilesHandler(get_wsgi_application())

from . import urls  # noqa: E402, F401  (now, so that no request has to wait for it)
