"""What a caller says with an event, and the receipt that it gets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, Literal, TypedDict

import msgspec

from django_gomq.bus.durations import timeout_of
from django_gomq.bus.errors import ConfigurationError, PublishError, class_name
from django_gomq.bus.event import Event
from django_gomq.bus.message import DEFAULT_PRIORITY, MAX_TYPE_LENGTH, Message


class EmitOptions(TypedDict, total=False):
    """The options of ``emit``, for type checkers."""

    key: str | None
    """What ``ordered_by_key`` consumers order by."""
    priority: int
    """0 to 9, 5 by default; higher is handled first."""
    delay: float | timedelta | None
    """Seconds, or a timedelta, before any consumer may see it."""
    headers: Mapping[str, str] | None
    broker: str | None
    """An alias, instead of the one that ``ROUTES`` names."""
    using: str | None
    """The database whose commit the event waits for, instead of all that are open."""
    on_commit: bool | None
    """False: publish now, whatever transaction is open."""
    timeout: float | timedelta | None
    """Seconds, or a timedelta, to wait for room; without one nothing waits."""
    strict: bool | None
    """True: raise a refusal; False: never."""


class Options(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The same with their defaults; raises TypeError for an unknown one."""

    key: str | None = None
    priority: int = DEFAULT_PRIORITY
    delay: float | None = None
    headers: Mapping[str, str] | None = None
    broker: str | None = None
    using: str | None = None
    on_commit: bool | None = None
    timeout: float | None = None
    strict: bool | None = None

    @property
    def is_plain(self) -> bool:
        """Whether nothing is said of the message itself."""
        return (
            self.key is None
            and self.priority is DEFAULT_PRIORITY
            and not self.delay
            and not self.headers
        )


PLAIN: Final = Options()
"""What most callers say: nothing."""


def choose(options: EmitOptions, event: object = None) -> Options:
    """Return what a caller said, beside this event, as a value.

    Raises TypeError for an unknown option, which says how data are passed, and
    ConfigurationError for a timeout or a switch that is none.
    """
    if not options:
        return PLAIN
    try:
        # A timedelta for delay is read where the message is validated.
        chosen = Options(**options)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(_tell_unknown(options, event)) from None
    for name in ("on_commit", "strict"):
        value = getattr(chosen, name)
        if value is not None and not isinstance(value, bool):
            raise ConfigurationError(
                f"{name} is of the class {class_name(value)}, not True, False or None."
            )
    if chosen.timeout is None:
        return chosen
    return msgspec.structs.replace(chosen, timeout=timeout_of(chosen.timeout))


def _tell_unknown(options: Mapping[str, Any], event: object) -> str:
    known = ", ".join(Options.__struct_fields__)
    unknown = [name for name in options if name not in Options.__struct_fields__]
    if isinstance(event, Event):
        advice = "A typed event carries its data in its fields."
    else:
        name = repr(event)[:MAX_TYPE_LENGTH] if isinstance(event, str) else "name"
        fields = ", ".join(f"{field!r}: ..." for field in unknown if field != "data")
        advice = f"Data are one dict, by position: emit({name}, {{{fields or '...'}}})."
    return f"There is no option {', '.join(unknown)}. {advice} Options are {known}."


State = Literal["accepted", "pending", "refused", "unknown"]


class Receipt(msgspec.Struct, eq=False):
    """True if the message was taken or may still be; ``pending`` until the commit.

    ``unknown``, which is false, is what a server did not answer in time: it may have
    the message, or not.
    """

    message: Message[Any]
    state: State = "pending"
    reason: str | None = None
    """Why it was refused: a PublishError's code, ``rolled_back``, ``not_installed``."""
    error: PublishError | None = None

    def accept(self) -> None:
        """Note that the message was taken."""
        self.state = "accepted"

    def doubt(self, error: PublishError | None = None) -> None:
        """Note that nobody knows whether the message was taken."""
        self.state, self.reason, self.error = "unknown", "unknown", error

    def refuse(self, reason: str, error: PublishError | None = None) -> None:
        """Note that nobody will see the message, and why."""
        self.state, self.reason, self.error = "refused", reason, error

    def __bool__(self) -> bool:
        """Whether the message was taken, or waits for its commit."""
        return self.state in ("accepted", "pending")

    def __repr__(self) -> str:
        """Name the message and its state, never its data."""
        why = f", reason={self.reason!r}" if self.reason else ""
        return f"<Receipt {self.message.type} {self.message.id} {self.state}{why}>"
