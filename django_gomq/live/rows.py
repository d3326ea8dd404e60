"""How one consumer is shown, in the table of all and at the head of its own page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from msgspec.structs import astuple

from . import amounts, svg
from .mounting import consumer_address
from .reading import ConsumerReading, State

_PARTS: Final = ("ok", "bad", "lost")
_FULL: Final = 0.9
_FILLING: Final = 0.5
_MARKED_SHARE: Final = 0.02
"""Failures are marked from this share of the attempts of the last minute on."""
_WORTH_TELLING: Final = 1.0
"""Seconds that the oldest message has waited."""

_SHAPES: Final = {
    "ok": '<circle cx="5" cy="5" r="3.5"/>',
    "warn": '<path d="M5 .5 9.5 5 5 9.5.5 5z"/>',
    "bad": '<path d="M5 .6 9.8 9.4H.2z"/>',
    "idle": '<circle class="g-ring" cx="5" cy="5" r="3"/>',
    "paused": '<path d="M2 1h2.2v8H2zM5.8 1H8v8H5.8z"/>',
}


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a consumer: in a word, a shape and a colour, with the reason."""

    kind: str
    badge: SafeString
    why: str


def status_of(found: ConsumerReading) -> Status:
    """Return how a consumer is."""
    kind, shape, word = _WORDS[found.state]
    if found.state is State.FILLING and found.paused_in:
        word = "Paused, filling"
    if found.state is State.PAUSED_LOSING and found.paused_in < found.processes:
        word = f"Losing, paused in {found.paused_in} of {found.processes}"
    if found.state is State.PAUSING:
        word = f"Pausing · {found.paused_in} of {found.processes}"
    if found.state is State.RESUMING:
        running = found.processes - found.paused_in
        word = f"Resuming · {running} of {found.processes}"
    return Status(kind=kind, badge=badge(kind, shape, word), why=_reason(found))


_WORDS: Final = {
    State.PAUSED_LOSING: ("bad", "bad", "Paused, losing"),
    State.LOSING: ("bad", "bad", "Losing"),
    State.STUCK: ("bad", "bad", "Stuck"),
    State.FAILING: ("bad", "bad", "Failing"),
    State.FILLING: ("warn", "warn", "Falling behind"),
    State.PAUSING: ("idle", "paused", "Pausing"),
    State.RESUMING: ("idle", "idle", "Resuming"),
    State.PAUSED: ("idle", "paused", "Paused"),
    State.ABSENT: ("idle", "idle", "Not started"),
    State.RUNNING: ("ok", "ok", "Running"),
    State.IDLE: ("idle", "idle", "Quiet"),
}
"""Kind, shape and word."""


def badge(kind: str, shape: str, word: str) -> SafeString:
    """Return a word with its shape, in a colour of its kind."""
    return mark_safe(  # noqa: S308 - what is not ours is escaped
        f'<span class="g-badge g-badge-{kind}"><svg viewBox="0 0 10 10" '
        f'aria-hidden="true">{_SHAPES[shape]}</svg>{escape(word)}</span>'
    )


def _reason(found: ConsumerReading) -> str:
    if found.state in (State.LOSING, State.PAUSED_LOSING):
        return ", ".join(reason.replace("_", " ") for reason in sorted(found.dropped))
    if found.state is State.STUCK:
        return f"for {amounts.duration(found.running_seconds)}"
    if found.state is State.FAILING:
        return f"{found.failed_share:.0%} of attempts"
    if found.state is State.ABSENT:
        return "no process runs it"
    by = found.desired.changed_by
    return f"by {by}" if found.paused_in and found.desired.paused and by else ""


class ConsumerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One consumer, as text and charts."""

    key: str
    """What forms name it by."""
    name: str
    broker: str
    address: str
    listens: str
    status: Status
    meter: SafeString
    held: str
    capacity: str
    outlook: str
    oldest: str
    bars: SafeString
    in_rate: str
    out_rate: str
    wait: str
    handler: str
    failed: str
    given_up: str
    """Empty for none."""
    lost: str
    is_failing: bool
    is_losing: bool
    is_paused: bool
    """Whether its button is to resume it."""


def consumer_row(found: ConsumerReading, root: str) -> ConsumerRow:
    """Return how a consumer is shown; ``root`` is the path of the first page."""
    dead = found.dead_lettered
    return ConsumerRow(
        key=f"{found.broker}/{found.consumer}",
        name=found.consumer,
        broker=found.broker,
        address=consumer_address(root, found.broker, found.consumer),
        listens=", ".join(found.types) or "not in the code of this process",
        status=status_of(found),
        meter=_meter(found),
        held=amounts.count(found.taken),
        capacity=amounts.count(found.capacity),
        outlook=_outlook(found),
        oldest=amounts.duration(found.oldest_age or None),
        bars=_bars(found),
        in_rate=amounts.rate(found.in_rate),
        out_rate=amounts.rate(found.out_rate),
        wait=amounts.duration(found.wait_p95),
        handler=amounts.duration(found.handler_p95),
        failed=amounts.count(found.failed),
        given_up=amounts.count(dead) if dead else "",
        lost=amounts.count(found.lost),
        is_failing=found.failed_share > _MARKED_SHARE,
        is_losing=found.lost > 0,
        is_paused=is_to_be_paused(found),
    )


def is_to_be_paused(found: ConsumerReading) -> bool:
    """Whether operators want it paused, or it is where they have said nothing."""
    wanted = found.desired.paused
    return found.paused_in > 0 if wanted is None else wanted


def _meter(found: ConsumerReading) -> SafeString:
    kind = "flow"
    if found.fill >= _FILLING:
        kind = "bad" if found.fill >= _FULL else "warn"
    return svg.meter(found.fill, kind)


def _outlook(found: ConsumerReading) -> str:
    if found.full_in is not None:
        return f" · full in {amounts.duration(found.full_in)}"
    if found.spilled:
        return f" · {amounts.count(found.spilled)} spilled"
    if found.oldest_age >= _WORTH_TELLING:
        return f" · oldest {amounts.duration(found.oldest_age)}"
    return ""


class Columns(NamedTuple):
    """The last five minutes of a consumer, each a number for each bar."""

    handled: Sequence[int]
    failed: Sequence[int]
    dropped: Sequence[int]
    dispatched: Sequence[int]
    dead_lettered: Sequence[int]


def columns_of(found: ConsumerReading) -> Columns:
    """Return the bars of a consumer by what they count."""
    return Columns(*zip(*map(astuple, found.bars), strict=True))


def _bars(found: ConsumerReading) -> SafeString:
    label = (
        f"{found.consumer}, last 5 minutes: {found.handled} handled, {found.failed} "
        f"failed, {found.lost} dropped"
    )
    return svg.bars(columns_of(found)[:3], _PARTS, label)


def held_before(held: int, columns: Columns) -> Sequence[int]:
    """Return how many messages were held at the end of each bar, about.

    From what is held now, and from what came and went since.
    """
    levels = list[int]()
    for came, *went in zip(
        reversed(columns.dispatched),
        reversed(columns.handled),
        reversed(columns.dropped),
        reversed(columns.dead_lettered),
        strict=True,
    ):
        levels.append(max(0, held))
        held -= came - sum(went)
    return levels[::-1]
