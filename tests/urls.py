"""The addresses of the example, where the admin is installed; none in the processes that tests start."""

from typing import Any

from django.apps import apps

urlpatterns: list[Any] = []
if apps.is_installed("django.contrib.admin"):
    from example_project.urls import urlpatterns as of_the_example

    urlpatterns += of_the_example
