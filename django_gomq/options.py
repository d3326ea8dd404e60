"""What a caller may say with an event; it knows no broker and no transaction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, TypedDict

import msgspec

from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.message import DEFAULT_PRIORITY


class EmitOptions(TypedDict, total=False):
    """The options of ``emit``, for type checkers."""

    key: str | None
    """What ``ordered_by_key`` consumers order by."""
    priority: int
    """0 to 9, 5 by default; higher is handled first."""
    delay: float | None
    """Seconds before any consumer may see it."""
    headers: Mapping[str, str] | None
    broker: str | None
    """An alias, instead of the one that ``ROUTES`` names."""
    using: str | None
    """The database whose commit the event waits for, if several could be meant."""
    on_commit: bool | None
    """False: publish now, whatever transaction is open."""
    timeout: float | None
    """Seconds to wait for room; without one nothing waits."""
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


def choose(options: EmitOptions) -> Options:
    """Return what a caller said as a value.

    Raises TypeError for an unknown option, and ConfigurationError for a timeout that is
    no number of seconds.
    """
    if not options:
        return PLAIN
    chosen = Options(**options)
    timeout = chosen.timeout
    if timeout is not None and not (
        isinstance(timeout, int | float) and math.isfinite(timeout)
    ):
        raise ConfigurationError(
            f"timeout is {timeout!r}, not seconds; without one nothing waits."
        )
    return chosen
