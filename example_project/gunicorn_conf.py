"""How gunicorn serves the tracker: `gunicorn --config example_project/gunicorn_conf.py`."""

wsgi_app = "example_project.wsgi"
workers = 2
threads = 4
keepalive = 30
graceful_timeout = 5
control_socket_disable = True  # it would lie in the home directory, one for all
