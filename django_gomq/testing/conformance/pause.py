"""Theme pause: a consumer that is paused, resumed, or given another capacity."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from django_gomq.bus.backend import ConsumerState

from .site import CONSUMER, Notes, Site, wait_until


def used_processor() -> float:
    """Return which share of a processor this process uses, for 0.3 seconds."""
    wall, cpu = time.monotonic(), time.process_time()
    wait_until(lambda: time.monotonic() > wall + 0.3)
    return (time.process_time() - cpu) / (time.monotonic() - wall)


class PauseTheme:
    """A consumer that is paused, resumed, or given another capacity."""

    def test_nothing_starts_during_a_pause(self, site: Site) -> None:
        process, notes, others = site.process(), Notes(), Notes()
        process.consume(notes, starts=False)
        process.consume(others, name="suite.audit")
        process.broker.pause(CONSUMER)

        process.send_many(range(20))
        wait_until(lambda: len(others.handled) == 20)
        assert process.stats().paused
        assert notes.handled == []
        process.broker.resume(CONSUMER)

        wait_until(lambda: len(notes.handled) == 20)
        assert not process.stats().paused

    def test_a_paused_process_leaves_its_messages_to_others(self, site: Site) -> None:
        if not site.promises("durable"):
            return
        first, second, notes = site.process(), site.process(), Notes()
        first.consume(print, starts=False)
        first.broker.pause(CONSUMER)
        first.broker.start()
        second.consume(notes)

        first.send_many(range(20))
        first.close()  # of partitions, each belongs to one process

        wait_until(lambda: len(notes.handled) == 20)
        assert sum(first.stats().dispatched.values()) == 0

    def test_a_pause_costs_no_processor(self, site: Site) -> None:
        process, notes = site.process(), Notes()
        process.consume(notes, starts=False)
        process.broker.pause(CONSUMER)
        process.broker.start()
        process.send_many(range(20))

        # Other threads of this process may be busy for a while.
        assert any(used_processor() < 0.8 for _ in range(5))

        assert notes.handled == []

    def test_a_capacity_may_be_changed(self, site: Site) -> None:
        process, gate = site.process(), site.gate()
        process.consume(gate, capacity=5, overflow="backpressure")
        process.send(*range(20))
        wait_until(lambda: gate.entered)
        assert process.stats().capacity == 5

        process.broker.resize(CONSUMER, 2)
        process.broker.resize(CONSUMER, 50)
        process.broker.resize(CONSUMER, 3)
        gate.open()

        wait_until(lambda: len(gate.handled) == 20)
        process.wait_until_quiet()
        stats = process.stats()
        assert (stats.capacity, stats.succeeded) == (3, 20)

    def test_what_a_shrunk_channel_cannot_hold_goes_back(self, site: Site) -> None:
        if not site.promises("settles"):
            return
        process, gate = site.process(), site.gate()

        def shrink(name: str, given: Sequence[Any]) -> None:
            if name == "fetch" and given[0]:
                process.broker.resize(CONSUMER, 2)

        process.consume(gate, concurrency=5, starts=False)
        web = site.process(may_start=lambda: False)
        web.send_many(range(10), key="k")
        process.calls.before = shrink
        process.broker.start()
        wait_until(lambda: len(gate.entered) == 2)
        wait_until(lambda: process.calls.of("release"))
        stats = process.stats()
        assert (stats.depth, sum(stats.dispatched.values())) == (0, 2)

        gate.open()

        wait_until(lambda: process.stats().succeeded == 10)
        assert sorted(gate.handled) == [(number, 1) for number in range(10)]
        assert process.stats().unaccounted == 0

    def test_no_more_is_fetched_than_there_is_room_for(self, site: Site) -> None:
        process, gate = site.process(), site.gate(0)
        process.consume(gate, capacity=3, overflow="backpressure")
        process.send(*range(20), key="k")
        wait_until(lambda: gate.entered)

        stats = process.stats()

        assert stats.depth + stats.in_flight <= 3
        gate.open()
        wait_until(lambda: len(gate.handled) == 20)
        assert max((call.size for call in process.calls.of("fetch")), default=0) <= 3

    def test_an_operator_may_pause_and_resize_it_everywhere(self, site: Site) -> None:
        if not site.promises("settles"):
            return
        process, notes = site.process(), Notes()
        process.consume(notes, starts=False)
        backend = process.broker.backend
        keeps = site.promises("desired_state")
        desire = backend.desire if keeps else site.harness.desire
        desire(CONSUMER, ConsumerState(paused=True, capacity=7))
        process.send(1)

        process.broker.start()  # paused before anything is fetched

        wait_until(lambda: process.stats().paused)
        assert process.stats().capacity == 7
        assert notes.handled == []
        desire(CONSUMER, ConsumerState(paused=False))
        wait_until(lambda: notes.numbers == [1])
