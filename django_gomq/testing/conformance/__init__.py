"""The conformance suite: what every backend is tested by, capability by capability.

Derive a class from ``ConformanceSuite`` in a test module, and name its harness::

    class TestMyBackend(ConformanceSuite):
        harness = MyHarness

At the end of the run a table says, for each theme and backend, what was passed, what
the bus refuses because the backend does not promise it, and what was not tested.
docs/backends.md has a whole example.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from .accounting import AccountingTheme
from .async_handlers import AsyncTheme
from .batch import BatchTheme
from .dead_letter import DeadLetterTheme
from .delay import DelayTheme
from .drain import DrainTheme
from .harness import Harness
from .lost_lease import LostLeaseTheme
from .order import OrderTheme
from .pause import PauseTheme
from .prefetch import PrefetchTheme
from .priority import PriorityTheme
from .publish import PublishTheme
from .restart import RestartTheme
from .retry import RetryTheme
from .settlements import SettlementTheme
from .site import Site
from .transaction import TransactionTheme

__all__ = ["ConformanceSuite", "Harness"]


class ConformanceSuite(
    PublishTheme,
    OrderTheme,
    RetryTheme,
    DelayTheme,
    PriorityTheme,
    DeadLetterTheme,
    BatchTheme,
    PauseTheme,
    DrainTheme,
    LostLeaseTheme,
    SettlementTheme,
    AsyncTheme,
    PrefetchTheme,
    RestartTheme,
    TransactionTheme,
    AccountingTheme,
):
    """All themes, for one backend; derive from it, and name the harness."""

    harness: ClassVar[type[Harness]]
    """Makes a fresh server for each test."""

    @pytest.fixture
    def site(self, request: pytest.FixtureRequest) -> Iterator[Site]:
        """Return the processes of this test, which are closed at its end."""
        harness = self.harness()
        verdicts: list[tuple[str, str]] = []
        site = Site(harness, lambda *verdict: verdicts.append(verdict))
        theme = request.function.__module__.rpartition(".")[2]
        place = (type(self).__name__.removeprefix("Test"), theme)
        request.node.user_properties.append(("gomq_conformance", (place, verdicts)))
        yield site
        site.close()
