"""The traffic: visitors in threads, paced to a rate; what they do it does not know."""

from __future__ import annotations

import threading
import time
from random import Random

from clinic.simulation.actions import Visitor, add_patient, choose
from clinic.simulation.client import Client, UnansweredError
from clinic.simulation.tally import Tally

STOP_TIMEOUT = 40
"""Seconds for the visitors to end: longer than one answer may take."""

PAUSE = 0.2
"""Seconds after a request without an answer, so as not to storm a server in trouble."""


class Driver:
    """Visitors who come until they are told to stop."""

    def __init__(self, url: str, *, rate: float, workers: int, tally: Tally) -> None:
        self._url = url
        self._interval = workers / rate
        self._tally = tally
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._visit, args=(n,), name=f"visitor-{n}")
            for n in range(workers)
        ]
        self.failure: Exception | None = None
        """What ended a visitor who should have gone on."""

    def start(self) -> None:
        """Let the visitors in."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each visitor finish the action at hand, so that every answer counts."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(STOP_TIMEOUT)

    def _visit(self, number: int) -> None:
        client = Client(self._url, self._tally)
        try:
            # Each visitor has its own chance: the same seeds make the same traffic.
            self._act_until_stopped(Visitor(client, Random(number)))
        except Exception as error:  # noqa: BLE001 - told by whoever started the traffic
            self.failure = error
        finally:
            client.close()

    def _act_until_stopped(self, visitor: Visitor) -> None:
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            # A visitor who is late goes on from now: the rate is a limit, not a debt.
            due = max(due + self._interval, time.monotonic())
            self._act(visitor)

    def _act(self, visitor: Visitor) -> None:
        action = choose(visitor.chance) if visitor.patients else add_patient
        try:
            action(visitor)
        except UnansweredError:
            self._stopping.wait(PAUSE)
