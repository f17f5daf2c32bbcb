"""The tracker's two addresses, and the admin with the dashboard of the queue."""

from django.contrib import admin
from django.urls import path

from .tracker import views

urlpatterns = [
    path("", views.show_issues, name="issues"),
    path("api/<int:project>/envelope/", views.receive_envelope, name="envelope"),
    path("admin/", admin.site.urls),
]
