"""The law of conservation, read from the metrics alone.

Per event type `published = dispatched + queue depth + delayed`; per consumer
`dispatched = succeeded + dropped + dead-lettered + depth + scheduled + in flight +
spilled`.
The metrics have no `dispatched`: the first line gives it for the second. Dead letters
that somebody replayed on the live page come on top of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from acceptance.check import Check
from acceptance.scrape import Scrape, union

_WAITING = (
    "gomq_channel_depth",
    "gomq_messages_scheduled",
    "gomq_messages_in_flight",
    "gomq_messages_spilled",
)
NOTHING: Final[Mapping[str, int]] = MappingProxyType({})
_STANDING = ("gomq_queue_depth", "gomq_messages_delayed", *_WAITING)


def consumers(scrape: Scrape) -> list[str]:
    """Return the names of the consumers that have series."""
    return union(scrape.by("consumer", "gomq_messages_processed_total"))


def check_law(scrape: Scrape, replayed: Mapping[str, int] = NOTHING) -> list[Check]:
    """Compare, for each consumer, what came with what became of it."""
    return [
        Check(
            subject=consumer,
            left="dispatched + replayed" if replayed.get(consumer) else "dispatched",
            left_value=_dispatched(scrape, consumer) + replayed.get(consumer, 0),
            right="succeeded + dropped + dead-lettered + left",
            right_value=_accounted(scrape, consumer),
        )
        for consumer in consumers(scrape)
    ]


def left(scrape: Scrape, consumer: str) -> float:
    """Count what a consumer has still before it."""
    return sum(scrape.total(name, consumer=consumer) for name in _WAITING)


def standing(scrape: Scrape) -> float:
    """Count every message that is somewhere on its way."""
    return sum(scrape.total(name) for name in _STANDING)


def undelivered(scrape: Scrape, replayed: Mapping[str, int] = NOTHING) -> float:
    """Count what was published and no process holds: the database, or Redis, has it."""
    checks = check_law(scrape, replayed)
    return sum(max(check.left_value - check.right_value, 0) for check in checks)


def _dispatched(scrape: Scrape, consumer: str) -> float:
    events = scrape.by("event", "gomq_messages_processed_total", consumer=consumer)
    return sum(
        scrape.total("gomq_messages_published_total", event=event)
        - scrape.total("gomq_queue_depth", event=event)
        - scrape.total("gomq_messages_delayed", event=event)
        for event in events
    )


def _accounted(scrape: Scrape, consumer: str) -> float:
    done = scrape.total(
        "gomq_messages_processed_total", consumer=consumer, outcome="success"
    )
    dropped = scrape.total("gomq_messages_dropped_total", consumer=consumer)
    dead = scrape.total("gomq_messages_dead_lettered_total", consumer=consumer)
    return done + dropped + dead + left(scrape, consumer)
