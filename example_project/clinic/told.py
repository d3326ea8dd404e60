"""What an answer tells about the events of its request; it knows neither emit nor HTTP.

A response carries one header, such as `health.record.saved=accepted*2`. The traffic
driver and the access log count from it, which makes a source of numbers that does not
pass through the metrics of django-gomq.
"""

from __future__ import annotations

from collections import Counter

TypeAndState = tuple[str, str]

HEADER = "X-Clinic-Events"
SENT = "sent"
"""The state of an event that a model signal emitted: the view holds no receipt."""
ROLLED_BACK = "rolled_back"
"""The state of an event whose transaction did not commit: nobody may ever see it."""


def write(told: Counter[TypeAndState]) -> str:
    """Write the header's value."""
    return ", ".join(f"{kind}={state}*{n}" for (kind, state), n in told.items())


def read(value: str) -> Counter[TypeAndState]:
    """Read the header's value; an absent header told nothing."""
    told: Counter[TypeAndState] = Counter()
    for part in filter(None, value.split(", ")):
        kind, _, rest = part.partition("=")
        state, _, count = rest.partition("*")
        told[kind, state] += int(count)
    return told
