"""The page of one consumer: charts, what fails, who emits for it, its options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from django_gomq.bus.consumer import MAX_CAPACITY, Consumer, ConsumerOptions
from django_gomq.bus.retry import Retry
from django_gomq.operations.desired import latest_acts
from django_gomq.site import Site

from . import amounts, letters, map_page, svg
from .mounting import Mount, Rights
from .overview import scope
from .reading import BAR_SECONDS, ConsumerReading, Reading
from .rows import columns_of, consumer_row, held_before
from .times import Times

_SHOWN_GROUPS: Final = 5
_SHOWN_ACTS: Final = 8


class Drawn(msgspec.Struct, frozen=True, kw_only=True):
    """A chart with what names its lines."""

    title: str
    series: Sequence[svg.Series]
    drawn: SafeString


def context(
    site: Site,
    reading: Reading,
    found: ConsumerReading,
    times: Times,
    rights: Rights,
    mount: Mount,
) -> Mapping[str, Any]:
    """Return what the page of this consumer shows."""
    name = found.consumer
    kept = letters.letters(name) if rights.letters else None
    own_letters = mount.address("live_dead_letters")
    return {
        "scope": scope(reading),
        "row": consumer_row(found, mount.address("live")),
        "charts": [_drawn(chart) for chart in _charts(found, times)],
        "emitters": map_page.emits_for(site, found.broker, name),
        "options": list(_options(site, found)),
        "groups": (
            None
            if kept is None
            else letters.groups(kept, rights, mount, most=_SHOWN_GROUPS)
        ),
        "own_letters": f"{own_letters}?{urlencode({'consumer': name})}",
        "acts": latest_acts(found.broker, name, _SHOWN_ACTS),
        "capacity_each": found.capacity // max(1, found.processes),
        "max_capacity": MAX_CAPACITY,
    }


def _drawn(chart: svg.Chart) -> Drawn:
    return Drawn(title=chart.title, series=chart.series, drawn=svg.draw(chart))


def _charts(found: ConsumerReading, times: Times) -> Iterator[svg.Chart]:
    name, columns = found.consumer, columns_of(found)

    def per_second(kind: str, what: str, counts: Sequence[int]) -> svg.Series:
        values = [count / BAR_SECONDS for count in counts]
        return svg.Series(kind=kind, name=what, values=values, is_filled=kind == "ok")

    yield svg.Chart(
        title="Rate, per second",
        label=f"{name}: handled, failed and dropped per second, last 5 minutes",
        series=(
            per_second("ok", "handled", columns.handled),
            per_second("bad", "failed", columns.failed),
            per_second("lost", "dropped", columns.dropped),
        ),
        written=amounts.rate,
    )
    held = held_before(found.taken + found.spilled, columns)
    yield svg.Chart(
        title="Waiting, scheduled and in flight",
        label=f"{name}: messages held, last 5 minutes",
        series=(svg.Series(kind="flow", name="messages", values=held, is_filled=True),),
        capacity=found.capacity or None,
        written=amounts.about,
    )

    for title, quantiles in (
        ("Wait before the handler", times.wait),
        ("Time in the handler", times.handler),
    ):
        yield svg.Chart(
            title=title,
            label=f"{name}: {title.lower()}, quantiles of the last 5 minutes",
            series=(
                svg.Series(kind="flow", name="p50", values=quantiles.p50),
                svg.Series(kind="warn", name="p95", values=quantiles.p95),
                svg.Series(kind="bad", name="p99", values=quantiles.p99),
            ),
            written=amounts.duration,
        )


def _options(site: Site, found: ConsumerReading) -> Iterator[tuple[str, str]]:
    known: Sequence[Consumer] = [
        consumer
        for consumer in site.consumers_of(found.broker)
        if consumer.name == found.consumer
    ]
    for consumer in known[:1]:
        for name in ConsumerOptions.__annotations__:
            if name != "retry" or consumer.retry is not None:
                yield name.replace("_", " "), _written(getattr(consumer, name))


def _written(value: Any) -> str:
    if isinstance(value, Retry):
        delays = f"{value.min_delay:g} to {value.max_delay:g} s apart"
        return f"{value.attempts} attempts, {delays}" if value.attempts > 1 else "once"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or amounts.UNKNOWN
    if isinstance(value, float):
        return f"{value:g}"
    return amounts.UNKNOWN if value is None else str(value)
