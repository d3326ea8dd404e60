from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

from tests.traces.site import telemetry

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.traces.site.settings")
telemetry.configure()
application = get_wsgi_application()
