"""When to try again: a pure policy of attempts and delays."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Never

from .durations import SECONDS_OR_TIMEDELTA, seconds_of
from .errors import ConfigurationError


@dataclass(frozen=True, init=False)
class Retry:
    """How often, and how long apart, a failed handler runs again.

    Delays grow as ``min_delay * factor ** (attempt - 1)`` up to ``max_delay``, in
    seconds or as timedeltas. With ``jitter`` each is drawn evenly between the whole and
    one and a half of it, so that many failures of one moment do not come back in one
    moment; it never leaves the bounds, so where they are one number, or are reached, it
    is gone. Raises ConfigurationError for an option that is wrong or does not exist.
    """

    attempts: int
    """All attempts together, the first included."""
    min_delay: float
    max_delay: float
    factor: float
    jitter: bool
    retry_on: tuple[type[BaseException], ...]
    """Only these exceptions are tried again."""
    give_up_on: tuple[type[BaseException], ...]
    """These are not, though ``retry_on`` names them too."""

    def __init__(
        self,
        *,
        attempts: int = 5,
        min_delay: float | timedelta = 1.0,
        max_delay: float | timedelta = 60.0,
        factor: float = 2.0,
        jitter: bool = True,
        retry_on: tuple[type[BaseException], ...] = (Exception,),
        give_up_on: tuple[type[BaseException], ...] = (),
        **unknown: Never,
    ) -> None:
        if unknown:
            raise ConfigurationError(
                f"Retry has no option {', '.join(map(repr, unknown))}; there are "
                f"{', '.join(self.__dataclass_fields__)}."
            )
        options = {
            "attempts": attempts,
            "min_delay": _read(min_delay),
            "max_delay": _read(max_delay),
            "factor": factor,
            "jitter": jitter,
            "retry_on": retry_on,
            "give_up_on": give_up_on,
        }
        for option, value in options.items():
            object.__setattr__(self, option, value)
        problem = self._problem()
        if problem:
            raise ConfigurationError(f"Retry: {problem}")

    def _problem(self) -> str:
        attempts, factor = self.attempts, self.factor
        if not isinstance(attempts, int) or attempts < 1 or attempts is True:
            return f"attempts is {attempts!r}, not a whole number from 1."
        for option in ("min_delay", "max_delay"):
            value = getattr(self, option)
            if seconds_of(value) is None:
                return f"{option} is {value!r:.120}, not {SECONDS_OR_TIMEDELTA}."
        if self.min_delay > self.max_delay:
            return (
                f"min_delay is {self.min_delay:g} s, more than max_delay, "
                f"{self.max_delay:g} s."
            )
        if not isinstance(factor, int | float) or not 1 <= factor < math.inf:
            return f"factor is {factor!r}, not a number from 1."
        if not isinstance(self.jitter, bool):
            return f"jitter is {self.jitter!r:.120}, not True or False."
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


def _read(delay: float | timedelta) -> float:
    """Return it in seconds; what is no span stays, for ``_problem`` to tell."""
    seconds = seconds_of(delay)
    return delay if seconds is None else seconds  # type: ignore[return-value]


NO_RETRY = Retry(attempts=1)
"""One attempt: what a consumer without a Retry has."""
