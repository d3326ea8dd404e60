"""Who subscribes to which event types; it knows no queue."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from .patterns import Pattern
from .subscription import Subscription

Match = Callable[[str], tuple[Subscription, ...]]


class Audience(NamedTuple):
    """Who gets the messages of a queue; one value, so that it changes in one step."""

    subscribers: tuple[Subscription, ...] = ()
    gates: tuple[Subscription, ...] = ()
    """Subscribers with backpressure: nothing is taken before they have room."""


class Subscribers:
    """Finds the subscribers of an event type, in the order in which they joined.

    Exact types are one look, however many there are; patterns are tried in turn.
    Threads may ``match`` while one of them adds.
    """

    def __init__(self) -> None:
        self.all: tuple[Subscription, ...] = ()
        self._exact: dict[str, list[Subscription]] = {}
        self._patterns: list[tuple[str, Subscription]] = []
        self.match: Match = self._find
        """Returns who subscribes to an event type; remembers the last 4096 answers."""

    def add(self, subscription: Subscription) -> None:
        """Let one more subscription be found."""
        for text in subscription.consumer.types:
            pattern = Pattern(text)
            if pattern.is_exact:
                self._exact.setdefault(text, []).append(subscription)
            else:
                self._patterns.append((pattern.prefix, subscription))
        self.all = (*self.all, subscription)
        # A new memory: a thread that is filling the old one fills it in vain.
        self.match = functools.lru_cache(4096)(self._find)

    def _find(self, event_type: str) -> tuple[Subscription, ...]:
        exact = self._exact.get(event_type, ())
        by_pattern = [
            one for prefix, one in self._patterns if event_type.startswith(prefix)
        ]
        if not by_pattern:
            return tuple(dict.fromkeys(exact))
        found = {*exact, *by_pattern}
        return tuple(one for one in self.all if one in found)
