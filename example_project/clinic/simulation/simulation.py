"""One run of the traffic from its first visitor to its last; it prints nothing."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from clinic.simulation.client import Client
from clinic.simulation.driver import Driver
from clinic.simulation.switching import SwitchTurner, mode_at
from clinic.simulation.tally import Counts, Tally


class Simulation:
    """Visitors, and one person at the switch; leaving it stops them all."""

    def __init__(
        self, url: str, *, seconds: float, rate: float, workers: int, switch: bool
    ) -> None:
        self._seconds = seconds
        self._switch = switch
        self._tally = Tally()
        self._driver = Driver(url, rate=rate, workers=workers, tally=self._tally)
        self._client = Client(url, self._tally)
        self._turner = SwitchTurner(self._client)
        self._started = 0.0

    def __enter__(self) -> Self:
        # Whoever comes to a closed door should be told so at once.
        self._client.get("/")
        self._started = time.monotonic()
        self._driver.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._driver.stop()
        self._client.close()

    @property
    def elapsed(self) -> float:
        """Seconds since the first visitor."""
        return time.monotonic() - self._started

    @property
    def over(self) -> bool:
        """Whether the time is up; a run of 0 seconds has no end."""
        return bool(self._seconds) and self.elapsed >= self._seconds

    @property
    def mode(self) -> str:
        """How the analyser behaves now."""
        return self._turner.mode

    def step(self) -> Counts:
        """Turn the switch if its time has come, and say how far the traffic is."""
        if self._driver.failure is not None:
            raise self._driver.failure
        if self._switch:
            self._turner.turn(mode_at(self.elapsed, self._seconds))
        return self._tally.counts()

    def finish(self) -> Counts:
        """Stop the traffic, leave the analyser as it was, and give the last counts."""
        self._driver.stop()
        self._turner.turn("normal")
        if self._driver.failure is not None:
            raise self._driver.failure
        return self._tally.counts()
