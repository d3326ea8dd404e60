from __future__ import annotations

import os

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.live.clinic.settings")

# No server for static files stands in front of it.
application = StaticFilesHandler(get_wsgi_application())

from django_gomq.operations import reporter  # noqa: E402 - after the settings

# A start waits for the first look, and on a busy machine that takes longer.
vars(reporter).update(FIRST_LOOK_SECONDS=60.0)
