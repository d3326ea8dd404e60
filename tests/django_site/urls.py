from __future__ import annotations

from django.urls import include, path

from tests.django_site.clinic import views

urlpatterns = [
    path("gomq/", include("django_gomq.urls")),
    path("save", views.save),
    path("fail", views.fail),
]
