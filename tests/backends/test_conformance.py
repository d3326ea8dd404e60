"""Every backend of the package, and three fakes, pass one suite."""

from __future__ import annotations

from collections import Counter

from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.backend import Backend
from django_gomq.testing.conformance import ConformanceSuite, Harness
from tests.backends.fakes.lease import LeaseHarness
from tests.backends.fakes.partition import PartitionHarness
from tests.backends.fakes.transaction import TransactionHarness


class MemoryHarness(Harness):
    def make_backend(self) -> Backend:
        return MemoryBackend()


class TestMemory(ConformanceSuite):
    harness = MemoryHarness


class TestLease(ConformanceSuite):
    harness = LeaseHarness


class TestPartition(ConformanceSuite):
    harness = PartitionHarness


class TestTransaction(ConformanceSuite):
    harness = TransactionHarness


def test_no_theme_hides_a_test_of_another() -> None:
    names = Counter(
        name
        for theme in ConformanceSuite.__mro__[1:]
        for name in vars(theme)
        if name.startswith("test_")
    )

    assert names.most_common(1)[0][1] == 1
