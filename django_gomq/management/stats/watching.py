"""Reads again and again until somebody presses Ctrl-C; it knows no source."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import Final

from django.core.management.base import CommandError

from .exits import CANNOT_READ, FINE
from .moment import Moment
from .rates import rates_between

Tell = Callable[[Moment | str], None]
"""Shows a moment, or what kept it from being one."""

_never: Final = Event()


class Watch:
    """Takes moments and tells them, each with rates since the one before."""

    def __init__(self, take: Callable[[], Moment], tell: Tell) -> None:
        """``take`` may raise CommandError."""
        self._take = take
        self._tell = tell
        self._before: tuple[Moment, float] | None = None
        self._code = FINE

    def run(self, seconds: float) -> int:
        """Go on every so many seconds; return the exit code of the latest moment.

        Raises the CommandError of the first: what never worked is a mistake. A later
        one is told, as a server that restarts is away for a while. Blocks until Ctrl-C.
        """
        try:
            self._step()
            while True:
                _never.wait(seconds)
                self._try_step()
        except KeyboardInterrupt:
            return self._code

    def _try_step(self) -> None:
        try:
            self._step()
        except CommandError as error:
            self._code = CANNOT_READ
            self._tell(str(error))

    def _step(self) -> None:
        moment, now = self._take(), time.monotonic()
        if self._before is not None:
            earlier, then = self._before
            moment = moment.with_rates(
                rates_between(earlier.numbers, moment.numbers, now - then)
            )
        self._before = moment, now
        self._code = moment.exit_code  # before it is told: Ctrl-C may come then
        self._tell(moment)
