from __future__ import annotations

from typing import ClassVar

import pytest

from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.backend import Capabilities
from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import ConfigurationError


class Unordered(MemoryBackend):
    capabilities: ClassVar[Capabilities] = Capabilities(priority=True)


def test_an_order_that_the_backend_does_not_promise_is_refused() -> None:
    broker = Broker(Unordered)
    broker.consume("a.b", print, name="plain")
    broker.consume("a.b", print, name="ordered", ordered_by_key=True)

    with pytest.raises(ConfigurationError, match="'ordered'.*no order by key"):
        broker.start()


def test_an_order_that_the_backend_promises_is_taken() -> None:
    broker = Broker(MemoryBackend)
    broker.consume("a.b", print, name="ordered", ordered_by_key=True)

    broker.start()

    assert broker.is_started
    broker.close(timeout=0)
