"""How a test speaks with the ward's processes; here by HTTP."""

from __future__ import annotations

import json
import re
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Final, Literal
from urllib.parse import urlencode

from tests.django_site.waiting import SECONDS, wait_until
from tests.servers.ward.rounds import Answer

_ADDRESS: Final = re.compile(r"127\.0\.0\.1:([1-9]\d+)")
# Long enough that a second request finds this worker busy, and goes to another.
_HOLD_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Ask:
    """A question: who are you, and what room is there; or an order to emit events."""

    name: Literal["tell", "look", "emit", "emit_for_ever"] = "tell"
    kind: Literal["", "slow", "stuck", "fast"] = ""
    count: int = 0
    limit: float | None = None
    """After how many seconds Celery raises in a task."""


class Asker(ABC):
    """Asks a server, one of whose workers answers."""

    @abstractmethod
    def __call__(self, ask: Ask, *, hold: float = 0.0) -> Answer:
        """Ask, and wait for the answer of a worker that is then held for a while."""

    @abstractmethod
    def read_metrics(self) -> str:
        """Return the metrics page of a worker; empty where nobody serves one."""

    def at_once(self, ask: Ask, workers: int) -> Iterator[Answer]:
        """Ask so many times at once that each of so many workers may get a turn."""
        times = workers * 3 if workers > 1 else 1
        hold = _HOLD_SECONDS if workers > 1 else 0.0
        with ThreadPoolExecutor(times) as pool:
            yield from pool.map(lambda _: self(ask, hold=hold), range(times))


class ByHttp(Asker):
    """Sends a request, each over a connection of its own."""

    def __init__(self, check: Callable[[], str]) -> None:
        wait_until(lambda: _ADDRESS.search(check()), "an address")
        found = _ADDRESS.search(check())
        assert found
        self._url = f"http://{found[0]}/"
        wait_until(lambda: check() and self._is_listening(), "an answer")

    def _is_listening(self) -> bool:
        try:
            self(Ask())
        except OSError:
            return False
        return True

    def __call__(self, ask: Ask, *, hold: float = 0.0) -> Answer:
        query = urlencode({**asdict(ask), "hold": hold})
        answer: Answer = json.loads(self._get(f"{ask.name}?{query}"))
        return answer

    def read_metrics(self) -> str:
        return self._get("gomq/metrics")

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(self._url + path, timeout=SECONDS) as response:
            text: str = response.read().decode()
            return text
