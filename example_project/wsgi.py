"""What gunicorn serves: `gunicorn example_project.wsgi`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")

application = get_wsgi_application()

from . import urls  # noqa: E402, F401  (now, so that no client has to wait for it)
