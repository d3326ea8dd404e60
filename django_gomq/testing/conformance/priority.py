"""Theme priority: the higher is started first, or refused."""

from __future__ import annotations

from typing import Any

from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.message import Message

from .site import EVENT, Notes, Site, wait_until


class PriorityTheme:
    """The higher is started first, or refused."""

    def test_a_higher_priority_is_started_first(self, site: Site) -> None:
        process, notes = site.process(), Notes()
        process.consume(notes, starts=False)
        if not site.capabilities.priority:
            with site.refusal("priority", ConfigurationError):
                process.send(1, priority=9)
            return
        process.broker.pause("suite.counter")
        process.broker.start()
        for number, priority in enumerate((1, 9, 5, 9, 0)):
            process.send(number, priority=priority)
        if not site.capabilities.settles:  # they are on their way to the channel
            wait_until(lambda: process.stats().depth == 5)

        process.broker.resume("suite.counter")

        wait_until(lambda: len(notes.handled) == 5)
        assert notes.numbers == [1, 3, 2, 0, 4]

    def test_a_batch_is_refused_as_a_whole(self, site: Site) -> None:
        if site.capabilities.priority:
            return
        process, notes = site.process(), Notes()
        process.consume(notes)
        urgent: Message[Any] = Message(EVENT, b"2", priority=9)

        with site.refusal("priority", ConfigurationError):
            process.broker.publish_many([Message(EVENT, b"1"), urgent])

        process.send(3)
        wait_until(lambda: notes.handled)
        assert notes.numbers == [3]
