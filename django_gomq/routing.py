"""Which broker an event type goes to, and which brokers a consumer reads; pure."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

import msgspec

from django_gomq.bus.consumer import Consumer
from django_gomq.bus.patterns import Pattern

DEFAULT: Final = "default"


class Routes:
    """The ``ROUTES`` setting: the most specific wins, ``default`` takes the rest."""

    def __init__(self, routes: Mapping[str, str]) -> None:
        self._routes = sorted(
            ((Pattern(text), alias) for text, alias in routes.items()),
            key=lambda pair: pair[0].specificity,
            reverse=True,
        )
        # Names of types may be data, so the memory of answers is bounded.
        self.alias_of = functools.lru_cache(4096)(self._alias_of)
        """Return the alias of the broker that an event type goes to."""

    def _alias_of(self, event_type: str) -> str:
        for pattern, alias in self._routes:
            if pattern.matches(event_type):
                return alias
        return DEFAULT

    def share_of(self, consumer: Consumer, alias: str) -> Consumer | None:
        """Return the consumer with the types that may be routed to that broker."""
        types = tuple(
            text for text in consumer.types if self._may_reach(Pattern(text), alias)
        )
        return msgspec.structs.replace(consumer, types=types) if types else None

    def _may_reach(self, wanted: Pattern, alias: str) -> bool:
        if wanted.is_exact:
            return self._alias_of(wanted.text) == alias
        if any(wanted.overlaps(one) for one, to in self._routes if to == alias):
            return True
        is_covered = any(pattern.covers(wanted) for pattern, _ in self._routes)
        return alias == DEFAULT and not is_covered
