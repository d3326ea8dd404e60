"""The WSGI entry: it sets up tracing in the process that serves, then Django."""

from __future__ import annotations

import os

from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application
from django.utils.module_loading import import_string

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "clinic.settings")

if settings.TRACES != "none":
    import_string("clinic.telemetry.configure")(settings.TRACES)

# A site in production has a server for static files in front of it; this has none.
application = StaticFilesHandler(get_wsgi_application())
