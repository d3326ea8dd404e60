"""Lets none of the bus's own connections wait for a silent server without end.

A server that is stopped, or a network that swallows what is sent, answers nothing, and
ends no connection either. Drivers then wait for as long as the system does: up to
hours, and for ever where something between the two keeps the connection.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper

CONNECT_SECONDS: Final = 10
"""What it may take to connect, where OPTIONS in DATABASES do not say."""

LATE: Final = "the server did not answer in time"
_Steps = Generator[Any, int, Any]
"""Of psycopg: yields what it waits for, takes what is ready, returns the answer."""


class Limit:
    """How long the calls of one connection may take; used by one thread at a time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = math.inf

    @contextmanager
    def running(self, seconds: float | None = None) -> Generator[None]:
        """Give what is called inside that long, from now; or so many seconds, if less.

        Only psycopg takes less.
        """
        allowed = self._seconds if seconds is None else min(seconds, self._seconds)
        self._until = time.monotonic() + allowed
        try:
            yield
        finally:
            self._until = math.inf

    def put_on(self, wrapper: BaseDatabaseWrapper) -> None:
        """Have a connection that is not open yet keep it; SQLite has no server."""
        options = wrapper.settings_dict["OPTIONS"]
        if wrapper.vendor == "mysql":
            seconds = max(1, math.ceil(self._seconds))
            options.setdefault("connect_timeout", CONNECT_SECONDS)
            options.setdefault("read_timeout", seconds)
            options.setdefault("write_timeout", seconds)
        elif wrapper.vendor == "postgresql":
            options.setdefault("connect_timeout", CONNECT_SECONDS)
            self._bound(wrapper)

    def _bound(self, wrapper: Any) -> None:
        """Have what psycopg waits for end in time: it has no such option."""
        connect = wrapper.get_new_connection

        def connect_bounded(parameters: Any) -> Any:
            connection = connect(parameters)
            wait = getattr(connection, "wait", None)
            if wait is None:
                return connection  # it is psycopg2

            def wait_in_time(steps: _Steps, *rest: Any, **options: Any) -> Any:
                if self._until < math.inf:
                    late = wrapper.Database.OperationalError(LATE)
                    steps = _in_time(steps, self._until, late)
                return wait(steps, *rest, **options)

            connection.wait = wait_in_time
            return connection

        wrapper.get_new_connection = connect_bounded


def _in_time(steps: _Steps, until: float, late: Exception) -> _Steps:
    """Go through the steps of psycopg, but raise when they take too long.

    Whoever waits for the socket, in C, comes by ten times a second with nothing: so it
    is since psycopg 3.2.
    """
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > until:
                raise late
            wanted = steps.send(ready)
    except StopIteration as end:
        return end.value
