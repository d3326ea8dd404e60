"""The ward for WSGI servers."""

from __future__ import annotations

from django.core.wsgi import get_wsgi_application

from tests.servers.ward import backlog

application = get_wsgi_application()
backlog.make_if_wanted()
