from __future__ import annotations

from tests.bus.conftest import broker, interrupts, make_broker

__all__ = ["broker", "interrupts", "make_broker"]
