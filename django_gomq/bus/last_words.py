"""What a stop left of the messages it found; it knows no broker."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from .outcome import DropReason
from .stats import Remainder
from .subscription import Subscription


def last_words(subscriptions: Iterable[Subscription], began: float) -> Remainder:
    """Return what was left by a stop that began then, by ``time.monotonic()``."""
    dropped: Counter[str] = Counter()
    in_flight = 0
    for subscription in subscriptions:
        in_flight += subscription.in_flight
        for (event, reason), count in subscription.counts.dropped.items():
            if reason is DropReason.SHUTDOWN:
                dropped[event] += count
    seconds = time.monotonic() - began
    return Remainder(dropped=dict(dropped), in_flight=in_flight, seconds=seconds)
