"""What a handler thread is doing, and for how long; it starts no thread."""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from .slices import Server


class Seat(msgspec.Struct, eq=False):
    """The place of one handler thread, which alone writes to it."""

    server: Server | None = None
    since: float = 0.0
    reported: bool = False


def report_overruns(seats: Iterable[Seat]) -> None:
    """Tell hooks, once, of each slice that takes longer than its consumer's timeout."""
    now = time.monotonic()
    for seat in seats:
        server = seat.server
        if server is None or seat.reported:
            continue
        consumer = server.subscription.consumer
        ran = now - seat.since
        if consumer.timeout is not None and ran > consumer.timeout:
            seat.reported = True
            broker, name = server.subscription.broker, consumer.name
            server.subscription.hooks.tell(
                lambda hook: hook.overran(broker, name, ran)  # noqa: B023
            )
