"""What a drain sees of work that moves on while it looks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django_gomq.bus.broker import Broker
from django_gomq.bus.message import Message
from django_gomq.bus.worker.drain import Drain
from tests.bus.waiting import LONG, wait_until


class LookedAt:
    """A subscription that something happens behind, as soon as it was looked at."""

    def __init__(self, subscription: Any, then: Callable[[], object]) -> None:
        self._subscription, self._then = subscription, then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._subscription, name)

    def scheduled(self, seconds: float) -> int:
        found: int = self._subscription.scheduled(seconds)
        self._then()
        return found


def test_what_a_handler_emits_as_it_ends_between_two_looks_is_seen(
    broker: Broker,
) -> None:
    gate, effect_gate, effects = threading.Event(), threading.Event(), list[object]()

    def emit_effect(message: Message[Any]) -> None:
        gate.wait(LONG)
        broker.publish(Message("a.effect"))

    def handle_effect(message: Message[Any]) -> None:
        effects.append(message)
        effect_gate.wait(LONG)

    def go_on() -> None:
        gate.set()
        wait_until(lambda: effects and broker.stats().consumers["cause"].succeeded)

    broker.consume("a.effect", handle_effect, name="effect")
    broker.consume("a.cause", emit_effect, name="cause")
    broker.publish(Message("a.cause"))
    runtime: Any = broker._current_runtime()
    wait_until(lambda: runtime.subscription("cause").in_flight)
    drain = Drain("default", runtime.inbox, runtime._worker, broker.hooks)
    looked_at: Any = LookedAt(runtime.subscription("effect"), go_on)
    drain.add(looked_at)
    drain.add(runtime.subscription("cause"))

    has_work = drain.has_work()
    effect_gate.set()

    assert has_work
