"""Theme retry: what fails comes again, after its time, until it is given up."""

from __future__ import annotations

from typing import Any

from django_gomq.bus.delivery import RetryLater, Verdict
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry

from .site import EVENT, Notes, Site, wait_until

DELAY = 0.05
AGAIN = Retry(attempts=3, min_delay=DELAY, max_delay=DELAY)


def fail(message: Message[Any]) -> None:
    raise ValueError(f"attempt {message.attempt}")


class RetryTheme:
    """What fails comes again, after its time, until it is given up."""

    def test_a_handler_that_raises_is_tried_again_and_given_up(
        self, site: Site
    ) -> None:
        process, notes = site.process(), Notes(fail)
        process.consume(notes, retry=AGAIN)

        process.send(1)

        wait_until(lambda: process.stats().dead_lettered == 1)
        process.wait_until_quiet()
        stats = process.stats()
        assert notes.handled == [(1, 1), (1, 2), (1, 3)]
        assert stats.retries == 2
        assert stats.processed == {(EVENT, Verdict.ERROR): 3}

    def test_a_retry_waits_for_its_time(self, site: Site) -> None:
        process, notes = site.process(), Notes(fail)
        process.consume(notes, retry=AGAIN)

        process.send(1)

        wait_until(lambda: len(notes.times) == 3)
        first, second, third = notes.times
        assert second - first >= DELAY
        assert third - second >= DELAY

    def test_a_retry_that_succeeds_is_done(self, site: Site) -> None:
        def fail_twice(message: Message[Any]) -> None:
            if message.attempt < 3:
                raise ValueError

        process = site.process()
        process.consume(fail_twice, retry=AGAIN)

        process.send_many(range(20))

        wait_until(lambda: process.stats().succeeded == 20)
        process.wait_until_quiet()
        assert process.stats().retries == 40
        assert process.broker.dead_letters() == []

    def test_a_handler_that_asks_for_later_spends_no_attempt(self, site: Site) -> None:
        def ask(message: Message[Any]) -> None:
            if len(notes.handled) < 4:
                raise RetryLater(0.01)

        process, notes = site.process(), Notes(ask)
        process.consume(notes)

        process.send(1)

        wait_until(lambda: process.stats().succeeded == 1)
        assert notes.handled == [(1, 1)] * 4
        assert process.stats().exceptions == {}

    def test_others_go_on_while_one_waits_for_its_retry(self, site: Site) -> None:
        def fail_first(message: Message[Any]) -> None:
            if message.data == 0:
                raise ValueError

        process, notes = site.process(), Notes(fail_first)
        process.consume(notes, retry=Retry(min_delay=600, max_delay=600))

        process.send_many(range(10), key="k")

        wait_until(lambda: process.stats().succeeded == 9)
        assert notes.handled == [(number, 1) for number in range(10)]

    def test_a_retry_outlives_its_process(self, site: Site) -> None:
        if not site.promises("durable"):
            return
        first, second, notes = site.process(), site.process(), Notes()
        first.consume(fail, retry=AGAIN)
        first.send(1)
        wait_until(lambda: first.stats().retries == 1)

        first.close(0)
        second.consume(notes, retry=AGAIN)

        wait_until(lambda: notes.handled)
        ((number, attempt),) = notes.handled
        assert number == 1
        if site.promises("delayed_retry"):
            assert attempt == 1 + first.stats().retries
