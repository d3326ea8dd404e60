"""The errors for who is refused by a queue; they know no queue."""

from __future__ import annotations

from .errors import (
    BrokerClosedError,
    NotRunningError,
    PublishError,
    PublishTimeoutError,
    QueueFullError,
)


def not_running(event: str, broker: str, *, is_closed: bool) -> PublishError:
    """Return the error for a queue that nobody empties."""
    if is_closed:
        text = f"Broker {broker!r} is closed."
        return BrokerClosedError(text, event=event, broker=broker)
    text = "The dispatcher is down; it restarts."
    return NotRunningError(text, event=event, broker=broker)


def no_room(
    event: str, broker: str, capacity: int, timeout: float | None
) -> PublishError:
    """Return the error for a queue that is full, also after that many seconds."""
    if timeout:
        text = f"The queue of {event!r} had no room for {timeout} s."
        return PublishTimeoutError(text, event=event, broker=broker)
    text = f"The queue of {event!r} is full ({capacity})."
    return QueueFullError(text, event=event, broker=broker)
