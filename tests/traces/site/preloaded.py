"""The application for a server that loads it and forks: it leaves the SDK to a hook."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.traces.site.settings")
application = get_wsgi_application()
