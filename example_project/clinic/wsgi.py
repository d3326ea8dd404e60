"""The WSGI entry: it sets up tracing in the process that serves, then Django."""

from __future__ import annotations

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.utils.module_loading import import_string

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "clinic.settings")

if settings.TRACES != "none":
    import_string("clinic.telemetry.configure")(settings.TRACES)

application = get_wsgi_application()
