"""The backend for Django's tasks framework, `django.tasks`."""
