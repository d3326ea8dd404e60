"""Theme prefetch: a reader fetches ahead, and leaves enough to others."""

from __future__ import annotations

import time
from typing import Any

from django_gomq.bus.message import Message

from .site import EVENT, Notes, Site, wait_until


class PrefetchTheme:
    """A reader fetches ahead, and leaves enough to others."""

    def test_a_process_that_joins_a_slow_one_finds_work(self, site: Site) -> None:
        if not site.promises("durable"):
            return
        first, second = site.process(), site.process()
        gate, notes = site.gate(), Notes()
        first.consume(gate)
        messages: list[Message[Any]] = [
            Message(EVENT, b"%d" % number, key=f"k{number}") for number in range(200)
        ]
        first.broker.publish_many(messages)
        wait_until(lambda: gate.entered)

        second.consume(notes)

        wait_until(lambda: len(notes.handled) > 20)
        assert first.stats().depth < 20

    def test_a_slow_handler_is_given_about_a_second_of_work(self, site: Site) -> None:
        if not site.promises("durable"):
            return
        process, slow_enough = site.process(), 0.02

        def work(message: Message[Any]) -> None:
            depths.append(process.stats().depth)
            time.sleep(slow_enough)

        depths: list[int] = []
        process.consume(work)

        process.send_many(range(200), key="k")

        wait_until(lambda: len(depths) > 30)
        assert max(depths) <= 1 / slow_enough
        process.close(0)

    def test_a_reader_is_not_woken_for_each_free_place(self, site: Site) -> None:
        if not site.promises("settles"):
            return

        def work(message: Message[Any]) -> None:
            time.sleep(0.01)  # with four at once, a second of it is 400 messages

        process, notes, count = site.process(), Notes(work), 600
        process.consume(notes, concurrency=4, starts=False)
        process.send_many(range(count), key="k")

        process.broker.start()

        wait_until(lambda: len(notes.handled) == count)
        fetches = [call for call in process.calls.of("fetch") if call.size]
        assert sum(call.size for call in fetches) == count
        assert len(fetches) < count / 5

    def test_a_full_channel_asks_for_nothing(self, site: Site) -> None:
        if not site.promises("settles"):
            return
        process, gate = site.process(), site.gate()
        process.consume(gate)
        process.send(*range(20), key="k")
        wait_until(lambda: gate.entered)
        wait_until(lambda: process.stats().depth > 1)  # all that it asks for
        began = time.monotonic()
        fetches = len(process.calls.of("fetch"))

        wait_until(lambda: time.monotonic() > began + 0.5)

        more = len(process.calls.of("fetch")) - fetches
        # Once a second it is called all the same, so that a client can be served.
        assert more <= 2 + time.monotonic() - began
