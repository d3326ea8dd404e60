"""Theme delay: a message comes when its time has come, or is refused."""

from __future__ import annotations

import time

from django_gomq.bus.errors import MessageError

from .site import Notes, Site, wait_until

DELAY = 0.2


class DelayTheme:
    """A message comes when its time has come, or is refused."""

    def test_a_delayed_message_waits_for_its_time(self, site: Site) -> None:
        process, notes = site.process(), Notes()
        process.consume(notes)
        if not site.has_delay:
            with site.refusal("delay", MessageError):
                process.send(1, delay=DELAY)
            return
        began = time.monotonic()

        process.send(1, delay=DELAY)
        process.send(2)

        wait_until(lambda: len(notes.handled) == 2)
        waits = dict(zip(notes.numbers, notes.times, strict=True))
        assert waits[1] - began >= DELAY
        process.wait_until_quiet()

    def test_a_delay_of_a_batch_is_its_messages_own(self, site: Site) -> None:
        process, notes = site.process(), Notes()
        process.consume(notes)
        if not site.has_delay:
            with site.refusal("delay", MessageError):
                process.send_many([1, 2], delay=DELAY)
            return
        began = time.monotonic()

        process.send_many([1, 2], delay=DELAY)
        process.send_many([3])

        wait_until(lambda: len(notes.handled) == 3)
        assert all(
            when - began >= DELAY
            for number, when in zip(notes.numbers, notes.times, strict=True)
            if number != 3
        )

    def test_a_delay_that_is_too_long_is_refused(self, site: Site) -> None:
        process = site.process()
        process.consume(print)
        longest = site.capabilities.max_delay
        if longest is None:
            process.send(1, delay=10 * 365 * 86_400.0)
            return

        with site.refusal(f"a delay above {longest:g} s", MessageError):
            process.send(1, delay=longest + 1)

        assert sum(process.stats().dispatched.values()) == 0
