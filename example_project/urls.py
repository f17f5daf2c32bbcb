"""The tracker's two addresses."""

from django.urls import path

from .tracker import views

urlpatterns = [
    path("", views.show_issues, name="issues"),
    path("api/<int:project>/envelope/", views.receive_envelope, name="envelope"),
]
