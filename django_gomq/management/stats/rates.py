"""How fast counts grow between two moments; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from .numbers import ConsumerNumbers, EventNumbers, Key, Numbers

Rate = Mapping[Key, float]


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Counts a second; what is new since the earlier moment has none."""

    handled: Rate
    failed: Rate
    published: Rate


def rates_between(earlier: Numbers, later: Numbers, seconds: float) -> Rates | None:
    """Return the rates, or None where the two are not numbers of the same processes."""
    is_other = (earlier.started, earlier.processes) != (later.started, later.processes)
    if is_other or seconds <= 0:
        return None

    def rate(count: Callable[[Numbers], Mapping[Key, int]]) -> Rate:
        before = count(earlier)
        return {
            key: max(0, number - before[key]) / seconds
            for key, number in count(later).items()
            if key in before
        }

    return Rates(
        handled=rate(lambda one: {key_of(row): row.handled for row in one.consumers}),
        failed=rate(lambda one: {key_of(row): row.failed for row in one.consumers}),
        published=rate(lambda one: {key_of(row): row.published for row in one.events}),
    )


def key_of(row: ConsumerNumbers | EventNumbers) -> Key:
    """Return what tells a row from others of its kind."""
    name = row.consumer if isinstance(row, ConsumerNumbers) else row.event
    return row.broker, name
