"""Theme drain: a close finishes what was fetched, and gives back the rest."""

from __future__ import annotations

import threading
import time
from typing import Any

from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from django_gomq.bus.stats import Remainder

from .site import CONSUMER, Notes, Process, Site, wait_until


class Closing:
    """Closes a process on another thread."""

    def __init__(self, process: Process, timeout: float) -> None:
        self._remainders: list[Remainder] = []
        self._thread = threading.Thread(
            target=lambda: self._remainders.append(process.broker.close(timeout)),
            daemon=True,
        )
        self._thread.start()
        wait_until(lambda: process.broker.is_closed)
        runtime = process.broker._current_runtime()  # noqa: SLF001 - nothing else says
        wait_until(lambda: runtime.subscription(CONSUMER).draining)

    def end(self) -> Remainder:
        self._thread.join()
        return self._remainders[0]


class DrainTheme:
    """A close finishes what was fetched, and gives back the rest."""

    def test_a_close_finishes_what_was_fetched(self, site: Site) -> None:
        process, gate = site.process(), site.gate()
        process.consume(gate)
        process.send(*range(3), key="k")
        wait_until(lambda: gate.entered)
        wait_until(lambda: process.stats().depth)
        held = process.stats().depth + process.stats().in_flight

        closing = Closing(process, 60)
        gate.open()

        remainder = closing.end()
        assert remainder.is_clean
        assert len(gate.handled) >= held
        stats = process.stats()
        assert stats.succeeded == len(gate.handled)
        assert stats.unaccounted == 0

    def test_a_close_fetches_nothing_new(self, site: Site) -> None:
        if not site.promises("durable"):
            return
        process, gate = site.process(), site.gate()
        process.consume(gate, capacity=2)
        process.send(*range(20), key="k")
        wait_until(lambda: gate.entered)
        closing = Closing(process, 60)
        fetched = sum(call.size for call in process.calls.of("fetch"))
        gate.open()

        assert closing.end().is_clean

        # One call may have been under way.
        assert sum(call.size for call in process.calls.of("fetch")) <= fetched + 2
        assert len(gate.handled) <= 4
        notes = Notes()
        after = site.process()
        after.consume(notes)
        wait_until(lambda: len(gate.handled) + len(notes.handled) == 20)
        assert [*gate.numbers, *notes.numbers] == list(range(20))

    def test_a_close_does_not_poll_the_server(self, site: Site) -> None:
        if not site.promises("settles"):
            return
        process, gate = site.process(), site.gate()
        process.consume(gate)
        process.send(1)
        wait_until(lambda: gate.entered)
        closing = Closing(process, 60)
        began = time.monotonic()
        asked = len(process.calls.log) - len(process.calls.of("extend"))

        wait_until(lambda: time.monotonic() > began + 0.5)

        calls = len(process.calls.log) - len(process.calls.of("extend")) - asked
        assert calls / (time.monotonic() - began) < 10
        gate.open()
        assert closing.end().is_clean

    def test_what_was_not_started_goes_back_uncounted(self, site: Site) -> None:
        process, gate = site.process(), site.gate()
        process.consume(gate)
        process.send(*range(3), key="k")
        wait_until(lambda: gate.entered)
        wait_until(lambda: process.stats().depth)

        remainder = process.broker.close(0)

        stats = process.stats()
        assert remainder.in_flight == stats.in_flight == 1
        assert (stats.depth, stats.unaccounted) == (0, 0)
        if not site.promises("durable"):
            assert sum(remainder.dropped.values()) == 2
            return
        assert remainder.dropped == {}
        gate.open()
        notes = Notes()
        after = site.process()
        after.consume(notes)
        wait_until(lambda: {1, 2} <= set(notes.numbers))  # though no lease has ended
        assert {attempt for _, attempt in notes.handled} == {1}

    def test_a_close_waits_for_a_retry_that_is_due_in_time(self, site: Site) -> None:
        def fail_twice(message: Message[Any]) -> None:
            if message.attempt < 3:
                raise ValueError

        process, notes = site.process(), Notes(fail_twice)
        process.consume(notes, retry=Retry(min_delay=0.05, max_delay=0.05))
        process.send(1)
        wait_until(lambda: notes.handled)

        remainder = process.broker.close(60)

        assert remainder.is_clean
        assert process.stats().unaccounted == 0
        if not site.capabilities.delayed_retry:  # else the server has the next
            assert notes.handled == [(1, 1), (1, 2), (1, 3)]

    def test_a_close_does_not_wait_for_a_retry_that_is_due_too_late(
        self, site: Site
    ) -> None:
        def fail(message: Message[Any]) -> None:
            raise ValueError

        process = site.process()
        process.consume(fail, retry=Retry(min_delay=600, max_delay=600))
        process.send(1)
        wait_until(lambda: process.stats().retries == 1)

        remainder = process.broker.close(30)

        assert remainder.seconds < 20
        stats = process.stats()
        assert (stats.depth, stats.scheduled, stats.unaccounted) == (0, 0, 0)
        if site.promises("durable"):
            assert remainder.is_clean

    def test_a_close_does_not_start_what_is_paused(self, site: Site) -> None:
        process, gate = site.process(), site.gate()
        process.consume(gate)
        process.send(*range(3), key="k")
        wait_until(lambda: gate.entered)
        wait_until(lambda: process.stats().depth)
        process.broker.pause("suite.counter")
        gate.open()

        remainder = process.broker.close(30)

        assert remainder.seconds < 20
        assert gate.numbers == [0]
        assert process.stats().unaccounted == 0
