"""The numbers of one moment as JSON with stable keys; it reads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .moment import Moment
from .numbers import ConsumerNumbers, EventNumbers
from .rates import Rate, Rates, key_of


def as_data(moment: Moment) -> Mapping[str, Any]:
    """Return all that ``stats`` tells, as JSON has it."""
    numbers, rates = moment.numbers, moment.rates
    found: dict[str, Any] = {
        "source": moment.source,
        "processes": numbers.processes,
        "consumers": [_consumer(one, rates) for one in numbers.consumers],
        "events": [_event(one, rates) for one in numbers.events],
        "over": list(moment.over),
    }
    return found


def _consumer(row: ConsumerNumbers, rates: Rates | None) -> Mapping[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(row)
    if rates is not None:
        found["handled_per_second"] = _rate(rates.handled, row)
        found["failed_per_second"] = _rate(rates.failed, row)
    return found


def _event(row: EventNumbers, rates: Rates | None) -> Mapping[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(row)
    if rates is not None:
        found["published_per_second"] = _rate(rates.published, row)
    return found


def _rate(rate: Rate, row: ConsumerNumbers | EventNumbers) -> float | None:
    found = rate.get(key_of(row))
    return None if found is None else round(found, 3)
