"""URLs to include: ``path("gomq/", include("django_gomq.urls"))``."""

from __future__ import annotations

from django.apps import apps
from django.urls import path
from django.urls.resolvers import RoutePattern, URLResolver

from django_gomq import views
from django_gomq.bus.errors import ConfigurationError

# Without the app the pages would answer, and show nothing. A project in one file may
# import this before it knows its apps.
if apps.ready and not apps.is_installed("django_gomq"):
    raise ConfigurationError(
        "django_gomq.urls is included, and 'django_gomq' is not in INSTALLED_APPS: add "
        "it there, or take the URLs out."
    )

app_name = "gomq"
urlpatterns = [
    path("", views.index, name="index"),
    path("metrics", views.metrics, name="metrics"),
    path("livez", views.livez, name="livez"),
    path("readyz", views.readyz, name="readyz"),
    # As include() does it, but imported when somebody asks: the pages need models.
    URLResolver(RoutePattern("live/", is_endpoint=False), "django_gomq.live.urls"),
]
