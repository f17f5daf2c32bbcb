"""The configuration of gunicorn: `gunicorn --config example_project/gunicorn_conf.py`."""

wsgi_app = "example_project.wsgi"
workers = 2
threads = 4
keepalive = 30
graceful_timeout = 5
control_socket_disable = True  # all instances would share one in the home directory
