"""The ward for ASGI servers, as Django makes it."""

from __future__ import annotations

from django.core.asgi import get_asgi_application

from tests.servers.ward import backlog

application = get_asgi_application()
backlog.make_if_wanted()
