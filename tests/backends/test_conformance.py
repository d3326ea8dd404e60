"""Every backend of the package, and three fakes, pass one suite."""

from __future__ import annotations

from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.backend import Backend
from django_gomq.testing.conformance import ConformanceSuite, Harness
from tests.backends.fakes.lease import LeaseHarness


class MemoryHarness(Harness):
    def make_backend(self) -> Backend:
        return MemoryBackend()


class TestMemory(ConformanceSuite):
    harness = MemoryHarness


class TestLease(ConformanceSuite):
    harness = LeaseHarness
