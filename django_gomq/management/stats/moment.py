"""What is known at one moment; a value."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .exits import FINE, OVER
from .numbers import Numbers
from .rates import Rates


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one reading, and what follows from them."""

    source: str
    """An address or a directory."""
    numbers: Numbers
    rates: Rates | None = None
    """Since the reading before."""
    over: Sequence[str] = ()
    """What is above its limit, in sentences."""

    @property
    def exit_code(self) -> int:
        """Of a command that ends here."""
        return OVER if self.over else FINE

    def with_rates(self, rates: Rates | None) -> Moment:
        """Return the same moment with rates."""
        return msgspec.structs.replace(self, rates=rates)
