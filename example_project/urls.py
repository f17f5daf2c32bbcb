"""The URLs of the tracker, and the admin with the queue's dashboard."""

from django.contrib import admin
from django.urls import path

from .tracker import views

urlpatterns = [
    path("", views.show_issues, name="issues"),
    path("api/<int:project>/envelope/", views.receive_envelope, name="envelope"),
    path("admin/", admin.site.urls),
]
