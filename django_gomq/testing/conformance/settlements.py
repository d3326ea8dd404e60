"""Theme settlements: the server is told in batches, and never by a handler's thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from django_gomq.bus.message import Message

from .site import Notes, Site, wait_until

BATCH = 256


class SettlementTheme:
    """The server is told in batches, and never by a handler's thread."""

    def test_settlements_are_told_in_batches(self, site: Site) -> None:
        if not site.promises("settles"):
            return

        def work(message: Message[Any]) -> None:
            time.sleep(0.001)

        process, count = site.process(), 300
        process.consume(work, concurrency=4)

        process.send_many(range(count), key="k")

        wait_until(lambda: process.stats().succeeded == count)
        calls = process.calls.of("settle")
        assert sum(call.size for call in calls) == count
        assert len(calls) < count / 2
        assert max(call.size for call in calls) <= BATCH

    def test_one_batch_is_for_many_consumers(self, site: Site) -> None:
        if not site.promises("settles"):
            return
        process, consumers = site.process(), set[str]()
        sizes: list[int] = []

        def look(name: str, given: Sequence[Any]) -> None:
            if name == "settle":
                names = {settlement.consumer for settlement in given[0]}
                consumers.update(names)
                sizes.append(len(names))

        process.consume(Notes(), starts=False)
        process.consume(Notes(), name="suite.audit", starts=False)
        process.calls.before = look
        process.send_many(range(200))

        process.broker.start()

        wait_until(lambda: process.stats().succeeded == 200)
        wait_until(lambda: process.stats("suite.audit").succeeded == 200)
        assert consumers == {"suite.counter", "suite.audit"}
        assert max(sizes) == 2

    def test_no_handlers_thread_tells_the_server(self, site: Site) -> None:
        if not site.promises("settles"):
            return
        handlers: set[str] = set()

        def note(message: Message[Any]) -> None:
            handlers.add(threading.current_thread().name)

        async def note_async(message: Message[Any]) -> None:
            handlers.add(threading.current_thread().name)

        process = site.process()
        process.consume(note, starts=False)
        process.consume(note_async, name="suite.async", concurrency=8)

        process.send_many(range(50))

        wait_until(lambda: process.stats().succeeded == 50)
        wait_until(lambda: process.stats("suite.async").succeeded == 50)
        settlers = {call.thread for call in process.calls.of("settle")}
        assert settlers
        assert len(handlers) >= 2
        assert settlers.isdisjoint(handlers)

    def test_one_that_cannot_be_stored_does_not_hold_up_the_others(
        self, site: Site
    ) -> None:
        if not site.promises("settles"):
            return
        process, notes = site.process(), Notes()
        is_broken = threading.Event()
        is_broken.set()

        def refuse(name: str, given: Sequence[Any]) -> None:
            if name == "settle" and is_broken.is_set():
                bodies = [each.delivery.message.body for each in given[0]]
                if b"13" in bodies:
                    raise OSError("no room for 13")

        process.consume(notes, concurrency=4, starts=False)
        process.calls.before = refuse
        process.send_many(range(40))
        process.broker.start()
        wait_until(lambda: len(notes.handled) == 40)

        wait_until(lambda: process.stats().succeeded == 39)
        assert process.stats().in_flight == 1  # it is kept, and offered again
        is_broken.clear()

        wait_until(lambda: process.stats().succeeded == 40)
        process.wait_until_quiet()
        assert len(notes.handled) == 40

    def test_what_ended_while_the_server_was_away_is_told_later(
        self, site: Site
    ) -> None:
        if not site.promises("durable"):
            return
        process, gate = site.process(), site.gate()
        process.consume(gate, concurrency=3)
        process.send(*range(3))
        wait_until(lambda: len(gate.entered) == 3)
        site.harness.stop_server()
        gate.open()
        wait_until(lambda: len(gate.handled) == 3)
        failed = process.calls.of("settle")
        wait_until(lambda: len(process.calls.of("settle")) > len(failed) + 1)
        assert process.stats().succeeded == 0

        site.harness.start_server()

        wait_until(lambda: process.stats().succeeded == 3)
        process.wait_until_quiet()
        process.send(3)
        wait_until(lambda: process.stats().succeeded == 4)
        assert sorted(gate.handled) == [(number, 1) for number in range(4)]

    def test_what_the_server_was_never_told_is_in_the_last_words(
        self, site: Site
    ) -> None:
        if not site.promises("durable"):
            return
        process, gate = site.process(), site.gate()
        process.consume(gate, concurrency=2)
        process.send(1, 2)
        wait_until(lambda: len(gate.entered) == 2)
        process.cut()
        gate.open()
        wait_until(lambda: len(gate.handled) == 2)

        remainder = process.broker.close(0.1)

        assert remainder.unsettled == 2
        assert not remainder.is_clean
        stats = process.stats()
        assert (stats.succeeded, stats.handed_back, stats.unaccounted) == (0, 2, 0)
        process.mend()
        site.let_lease_end()
        after, notes = site.process(), Notes()
        after.consume(notes)
        wait_until(lambda: sorted(notes.numbers) == [1, 2])
