from __future__ import annotations

from django.urls import include, path

from tests.conservation.ledger import views

urlpatterns = [path("enter", views.enter), path("gomq/", include("django_gomq.urls"))]
