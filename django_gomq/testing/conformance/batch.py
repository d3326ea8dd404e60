"""Theme batch: many messages in one call, and the bad one by itself."""

from __future__ import annotations

from typing import Any

from django_gomq.bus.delivery import BatchFailed
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry

from .site import Site, wait_until

AGAIN = Retry(attempts=2, min_delay=0.01, max_delay=0.01)


class BatchTheme:
    """Many messages in one call, and the bad one by itself."""

    def test_a_batch_handler_gets_many_at_once(self, site: Site) -> None:
        process = site.process()
        sizes: list[int] = []
        process.consume(
            lambda messages: sizes.append(len(messages)), batch=10, linger=0.5
        )

        process.send_many(range(20), key="k")

        wait_until(lambda: sum(sizes) == 20)
        process.wait_until_quiet()
        assert max(sizes) == 10
        assert process.stats().succeeded == 20

    def test_one_bad_member_is_a_dead_letter_alone(self, site: Site) -> None:
        done: list[int] = []

        def handle(messages: list[Message[Any]]) -> None:
            numbers = [message.data for message in messages]
            if 3 in numbers:
                raise ValueError("not 3")
            done.extend(numbers)

        process = site.process()
        process.consume(handle, batch=5, linger=0.1, retry=AGAIN)

        process.send_many(range(10), key="k")

        wait_until(lambda: process.stats().dead_lettered == 1)
        wait_until(lambda: process.stats().succeeded == 9)
        process.wait_until_quiet()
        assert sorted(done) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
        (letter,) = process.broker.dead_letters()
        assert letter.message.data == 3

    def test_a_batch_may_name_those_that_failed(self, site: Site) -> None:
        handled: list[tuple[int, int]] = []

        def handle(messages: list[Message[Any]]) -> None:
            handled.extend((message.data, message.attempt) for message in messages)
            odd = [message for message in messages if message.data % 2]
            if odd and odd[0].attempt == 1:
                raise BatchFailed({message.id: ValueError() for message in odd})

        process = site.process()
        process.consume(handle, batch=4, retry=AGAIN)

        process.send_many(range(4), key="k")

        wait_until(lambda: process.stats().succeeded == 4)
        assert sorted(handled) == [(0, 1), (1, 1), (1, 2), (2, 1), (3, 1), (3, 2)]
