"""Waiting for a condition with a deadline, never for a time."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django_gomq.bus.broker import Broker

LONG = 60.0  # seconds, on a machine that does much else


def wait_until(condition: Callable[[], object], seconds: float = LONG) -> None:
    """Poll until the condition is true; fail at the deadline."""
    never = threading.Event()
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        never.wait(0.001)


def is_settled(broker: Broker) -> bool:
    """Whether the bus is quiet and its law holds."""
    stats = broker.stats()
    return (
        stats.is_quiet
        and all(consumer.unaccounted == 0 for consumer in stats.consumers.values())
        and all(
            queue.published == queue.dispatched + queue.depth + queue.delayed
            for queue in stats.queues.values()
        )
    )


def wait_until_settled(broker: Broker, seconds: float = LONG) -> None:
    wait_until(lambda: is_settled(broker), seconds)


def run_threads(*targets: Callable[[], object], seconds: float = LONG) -> None:
    """Run all at once and wait for all; what one raises is raised here."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(targets))

    def run(target: Callable[[], object]) -> None:
        try:
            barrier.wait(LONG)
            target()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=(target,), daemon=True) for target in targets
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]


@contextmanager
def fast_switching() -> Iterator[None]:
    """Let the interpreter change threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
