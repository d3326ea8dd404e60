"""The ward for WSGI servers."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

from tests.servers.ward import backlog

application = get_wsgi_application()
backlog.make_if_wanted()
if "WARD_FIRST_LOOK_SECONDS" in os.environ:
    from django_gomq.operations import reporter

    seconds = float(os.environ["WARD_FIRST_LOOK_SECONDS"])
    vars(reporter).update(FIRST_LOOK_SECONDS=seconds)
