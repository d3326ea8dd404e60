"""The ward for ASGI servers, drained at the lifespan's end."""

from __future__ import annotations

from django_gomq.asgi import Lifespan
from tests.servers.ward import asgi

application = Lifespan(asgi.application)
