"""What is above its limit; a pure rule."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from .numbers import ConsumerNumbers, EventNumbers, Numbers


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What is still fine; None: anything."""

    max_depth: int | None = None
    """Of each queue and of each channel."""
    max_age: float | None = None
    """Seconds that the oldest message of a channel may have waited."""

    def exceeded_by(self, numbers: Numbers) -> Iterator[str]:
        """Yield a sentence for each number above its limit."""
        if self.max_depth is not None:
            yield from self._too_deep(numbers, self.max_depth)
        if self.max_age is not None:
            for one in numbers.consumers:
                if one.oldest_age_seconds > self.max_age:
                    yield (
                        f"The oldest message of consumer {one.consumer!r} on broker "
                        f"{one.broker!r} has waited {one.oldest_age_seconds:.1f} s, "
                        f"more than {self.max_age:g}."
                    )

    def _too_deep(self, numbers: Numbers, limit: int) -> Iterator[str]:
        queues = [("Queue", one.event, one) for one in numbers.events]
        channels = [("Channel", one.consumer, one) for one in numbers.consumers]
        rows: list[tuple[str, str, EventNumbers | ConsumerNumbers]]
        rows = [*queues, *channels]
        for kind, name, one in rows:
            if one.depth > limit:
                yield (
                    f"{kind} {name!r} on broker {one.broker!r} holds {one.depth} "
                    f"messages, more than {limit}."
                )
