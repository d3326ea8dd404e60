"""When to try again: a pure policy of attempts and delays."""

from __future__ import annotations

import math
import random

import msgspec

from .errors import ConfigurationError


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How often, and how long apart, a failed handler runs again.

    Delays grow as ``min_delay * factor ** (attempt - 1)`` up to ``max_delay``, in
    seconds. With ``jitter`` each is drawn evenly between the whole and one and a half
    of it, so that many failures of one moment do not come back in one moment; it
    never leaves the bounds, so where they are one number, or are reached, it is gone.
    """

    attempts: int = 5
    """All attempts together, the first included."""
    min_delay: float = 1.0
    max_delay: float = 60.0
    factor: float = 2.0
    jitter: bool = True
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    """Only these exceptions are tried again."""
    give_up_on: tuple[type[BaseException], ...] = ()
    """These are not, though ``retry_on`` names them too."""

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise ConfigurationError(f"Retry: {problem}")

    def _problem(self) -> str:
        if not isinstance(self.attempts, int) or self.attempts < 1:
            return f"attempts is {self.attempts!r}, not a whole number from 1."
        for option in ("min_delay", "max_delay", "factor"):
            value = getattr(self, option)
            if not isinstance(value, int | float) or not math.isfinite(value):
                return f"{option} is {value!r}, not a number."
        if not 0 <= self.min_delay <= self.max_delay:
            return "min_delay must be at least 0 and at most max_delay."
        if self.factor < 1:
            return f"factor is {self.factor!r}, less than 1."
        return self._class_problem()

    def _class_problem(self) -> str:
        for option in ("retry_on", "give_up_on"):
            kinds = getattr(self, option)
            if not isinstance(kinds, tuple):
                return f"{option} is {kinds!r}, not a tuple of exception classes."
            for kind in kinds:
                if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                    return f"{kind!r} is not an exception class."
        return ""

    def delay_after(self, attempt: int, error: BaseException) -> float | None:
        """Return the seconds until the next attempt, or None to give up."""
        kind = type(error)  # as ``except`` does; isinstance asks what a class may hide
        if attempt >= self.attempts or issubclass(kind, self.give_up_on):
            return None
        if not issubclass(kind, self.retry_on):
            return None
        try:
            grown = self.min_delay * float(self.factor) ** (attempt - 1)
        except OverflowError:
            grown = self.max_delay
        grown = min(grown, self.max_delay)
        if self.jitter:
            return min(grown * random.uniform(1.0, 1.5), self.max_delay)
        return grown


NO_RETRY = Retry(attempts=1)
"""One attempt: what a consumer without a Retry has."""
