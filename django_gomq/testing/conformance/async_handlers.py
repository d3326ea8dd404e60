"""Theme async handlers: many at once on one event loop, which waits for no server."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry

from .site import Site, wait_until


class AsyncTheme:
    """Many at once on one event loop, which waits for no server."""

    def test_async_handlers_run_concurrently(self, site: Site) -> None:
        entered: list[int] = []
        all_are_in = asyncio.Event()

        async def meet(message: Message[Any]) -> None:
            entered.append(message.data)
            if len(entered) == 4:
                all_are_in.set()
            await all_are_in.wait()

        process = site.process()
        process.consume(meet, concurrency=4)

        process.send(*range(4))

        wait_until(lambda: process.stats().succeeded == 4)
        process.wait_until_quiet()

    def test_async_handlers_are_tried_again(self, site: Site) -> None:
        attempts: list[tuple[int, int]] = []

        async def fail_odd(message: Message[Any]) -> None:
            attempts.append((message.data, message.attempt))
            await asyncio.sleep(0)
            if message.data % 2 and message.attempt == 1:
                raise ValueError

        process = site.process()
        again = Retry(attempts=2, min_delay=0.01, max_delay=0.01)
        process.consume(fail_odd, concurrency=8, retry=again)

        process.send_many(range(20))

        wait_until(lambda: process.stats().succeeded == 20)
        process.wait_until_quiet()
        assert len(attempts) == 30
        assert process.stats().retries == 10

    def test_a_settlement_that_blocks_does_not_block_the_loop(self, site: Site) -> None:
        if not site.promises("settles"):
            return
        is_told, handled = threading.Event(), list[int]()

        def block(name: str, given: Any) -> None:
            if name == "settle":
                is_told.wait(60)

        async def note(message: Message[Any]) -> None:
            handled.append(message.data)

        process = site.process()
        process.consume(note, concurrency=4, starts=False)
        process.calls.before = block
        process.send(*range(2))
        process.broker.start()

        wait_until(lambda: len(handled) == 2)  # though the first is not settled
        assert process.stats().succeeded == 0
        is_told.set()

        wait_until(lambda: process.stats().succeeded == 2)
