"""Who emits and who listens, as values to be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

Declared = Literal["class", "settings", "consumer", "emit"]
WarningKind = Literal[
    "no_consumer",
    "no_emitter",
    "not_a_type",
    "not_in_code",
    "skipped",
    "unasked",
    "unreadable",
]


class EmitCall(msgspec.Struct, frozen=True, order=True):
    """One call that emits."""

    file: str
    line: int
    call: str
    """``emit``, ``aemit``, ``emit_many``, ``emit_model_events``, ``emit_on_signal``."""
    text: str
    """How the event is written there."""

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.file}:{self.line}"


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """One event type."""

    type: str
    version: int | None
    """None for an event without a class."""
    classes: Sequence[str]
    declared: Sequence[Declared]
    """What makes it known, and ``emit`` where only a call does."""
    may_be_unheard: bool
    """Its class says ``no_consumer="ignore"``."""
    broker: str
    consumers: Sequence[str]
    """Those enabled that subscribe to it, by name or by pattern."""
    emitters: Sequence[EmitCall]


class ConsumerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One consumer."""

    name: str
    handler: str
    types: Sequence[str]
    brokers: Sequence[str]
    events: Sequence[str]
    """The known event types that it subscribes to."""
    enabled: bool
    options: Mapping[str, Any]
    """Those that differ from the default."""


class BrokerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One broker."""

    alias: str
    name: str
    """Short, as in metrics."""
    backend: str
    run: str
    capacity: int | None
    capabilities: Mapping[str, Any]


class RouteRow(msgspec.Struct, frozen=True, kw_only=True):
    """One route; the first that matches an event type holds."""

    pattern: str
    broker: str


class WarningRow(msgspec.Struct, frozen=True, kw_only=True):
    """Something that looks like a mistake."""

    kind: WarningKind
    subject: str
    text: str


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """All that ``list`` tells."""

    events: Sequence[EventRow]
    consumers: Sequence[ConsumerRow]
    brokers: Sequence[BrokerRow]
    routes: Sequence[RouteRow]
    dynamic: Sequence[EmitCall]
    """Calls that emit what only a run would tell."""
    warnings: Sequence[WarningRow] = ()
