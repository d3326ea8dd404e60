"""An ASGI wrapper that drains the bus when the server shuts down; it emits nothing.

Django's own application has no lifespan, which is all that some servers tell an
application of its end (https://asgi.readthedocs.io/en/latest/specs/lifespan.html).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.typing import (
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    Scope,
)

from django_gomq import site

# What is taken is any ASGI application, whatever its own types of events are.
Application = Callable[[Any, Any, Any], Awaitable[None]]


class Lifespan:
    """Wraps an ASGI application: ``application = Lifespan(get_asgi_application())``.

    At the lifespan's end it finishes what the bus accepted, up to ``DRAIN_TIMEOUT``
    seconds, without blocking the event loop. A lifespan that the application has of its
    own goes on working, and ends first.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Handle the lifespan, and hand every other connection through."""
        if scope["type"] != "lifespan":
            await self.application(scope, receive, send)
            return
        await _Life(receive, send).run(self.application, scope)


class _Life:
    """One lifespan: from its startup to the end of the drain."""

    def __init__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        self._receive_event = receive
        self._send_event = send
        self._received: set[str] = set()
        self._sent: set[str] = set()

    async def run(self, application: Application, scope: Scope) -> None:
        try:
            await application(scope, self._receive, self._send)
        except Exception:
            # Django, for one, raises for what is no HTTP connection.
            if self._sent:
                await self._drain_if_ending()
                raise
        if not self._sent:
            await self._dispatch_inline()

    async def _receive(self) -> ASGIReceiveEvent:
        event = await self._receive_event()
        self._received.add(event["type"])
        return event

    async def _send(self, event: ASGISendEvent) -> None:
        self._sent.add(event["type"])
        if event["type"].startswith("lifespan.shutdown."):
            await _drain()
        await self._send_event(event)

    async def _drain_if_ending(self) -> None:
        if "lifespan.shutdown" in self._received:
            await _drain()

    async def _dispatch_inline(self) -> None:
        """Answer for an application that knows no lifespan."""
        for name in ("startup", "shutdown"):
            if f"lifespan.{name}" not in self._received:
                await self._receive()
            event: Any = {"type": f"lifespan.{name}.complete"}
            await self._send(event)


async def _drain() -> None:
    await asyncio.to_thread(site.coordinator.drain, "lifespan")
