"""Theme accounting: every message is counted once, and the sums are right."""

from __future__ import annotations

from functools import partial
from typing import Any

from django_gomq.bus.backend import Backend
from django_gomq.bus.delivery import RetryLater
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry

from .site import CONSUMER, EVENT, Notes, Site, wait_until

AGAIN = Retry(attempts=2, min_delay=0.01, max_delay=0.01)


class Troubled:
    """A handler that fails a tenth once, a tenth for ever, and puts a tenth off."""

    def __init__(self) -> None:
        self._asked: set[int] = set()

    def handle(self, message: Message[Any]) -> None:
        kind = message.data % 10
        if kind == 1 and message.attempt == 1:
            raise ValueError
        if kind == 2:
            raise ValueError
        if kind == 3 and message.data not in self._asked:
            self._asked.add(message.data)
            raise RetryLater(0.01)


class AccountingTheme:
    """Every message is counted once, and the sums are right."""

    def test_the_law_holds_in_each_process_and_over_all(self, site: Site) -> None:
        count, handler = 200, Troubled()
        processes = [
            site.process() for _ in range(2 if site.capabilities.durable else 1)
        ]
        for process in processes:
            process.consume(handler, concurrency=3, retry=AGAIN)

        messages: list[Message[Any]] = [
            Message(EVENT, b"%d" % number, key=f"k{number}") for number in range(count)
        ]
        answers = processes[0].broker.publish_many(messages)

        assert answers == [None] * count

        def ended() -> int:
            stats = [process.stats() for process in processes]
            return sum(each.succeeded + each.dead_lettered for each in stats)

        wait_until(lambda: ended() == count)
        for process in processes:
            process.wait_until_quiet()
        all_stats = [process.stats() for process in processes]
        assert sum(each.dead_lettered for each in all_stats) == count / 10
        assert sum(each.succeeded for each in all_stats) == count * 9 / 10
        came = sum(sum(each.dispatched.values()) for each in all_stats)
        assert came - sum(each.handed_back for each in all_stats) == count

    def test_the_law_holds_after_a_stop_in_the_midst(self, site: Site) -> None:
        process, handler = site.process(), Troubled()
        process.consume(handler, concurrency=3, retry=AGAIN)
        process.send_many(range(300))

        process.broker.close(0.02)

        wait_until(lambda: process.stats().in_flight == 0)
        stats = process.stats()
        assert (stats.depth, stats.scheduled, stats.unaccounted) == (0, 0, 0)
        if not site.promises("durable"):
            return
        second = site.process()
        site.let_lease_end()
        second.consume(handler, concurrency=3, retry=AGAIN)
        wait_until(
            lambda: (
                sum(
                    each.succeeded + each.dead_lettered
                    for each in (process.stats(), second.stats())
                )
                >= 300
            )
        )
        second.wait_until_quiet()
        assert second.stats().unaccounted == 0

    def test_the_law_holds_while_it_is_resized_and_paused(self, site: Site) -> None:
        process, handler = site.process(), Troubled()
        process.consume(
            handler, concurrency=3, retry=AGAIN, overflow="backpressure", capacity=50
        )
        sender = site.in_thread(partial(process.send_many, range(300)))
        for capacity in (1, 100, 3, 50):
            process.broker.resize(CONSUMER, capacity)
            process.broker.pause(CONSUMER)
            process.broker.resume(CONSUMER)
        sender.join()

        wait_until(
            lambda: process.stats().succeeded + process.stats().dead_lettered == 300
        )
        process.wait_until_quiet()

    def test_what_waits_at_the_server_is_told(self, site: Site) -> None:
        if not site.promises("durable"):
            return
        process = site.process()
        process.consume(Notes(), starts=False)
        web = site.process(may_start=lambda: False)
        web.send_many(range(5), key="k")
        process.broker.pause(CONSUMER)

        process.broker.start()

        wait_until(lambda: process.calls.done("stats"))
        wait_until(lambda: process.calls.done("desired_state"))
        if type(process.broker.backend).stats is Backend.stats:
            site.note_unpromised("numbers of the server")
            return

        def ready() -> int | None:
            server = process.broker.stats().server.consumers.get(CONSUMER)
            return None if server is None else server.ready

        # A sample may count twice what is just on its way from an outbox to a server.
        wait_until(lambda: ready() == 5)
