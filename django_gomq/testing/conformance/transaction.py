"""Theme transaction: messages are written into an open transaction, or refused."""

from __future__ import annotations

import time
from typing import Any

import pytest

from django_gomq.bus.errors import BrokerClosedError, ConfigurationError
from django_gomq.bus.message import Message

from .site import EVENT, Notes, Site, wait_until


class RolledBackError(Exception):
    """Ends the transaction of a test."""


def made(*numbers: int) -> list[Message[Any]]:
    return [Message(EVENT, b"%d" % number) for number in numbers]


class TransactionTheme:
    """Messages are written into an open transaction, or refused."""

    def test_what_is_committed_is_handled(self, site: Site) -> None:
        process, notes = site.process(), Notes()
        process.consume(notes)
        if not site.capabilities.transactional:
            with site.refusal("publish_in_transaction", ConfigurationError):
                process.broker.publish_in_transaction(made(1), "default")
            return

        with site.harness.atomic() as using:
            process.broker.publish_in_transaction(made(1, 2), using)

        wait_until(lambda: sorted(notes.numbers) == [1, 2])

    def test_nobody_sees_it_before_the_commit(self, site: Site) -> None:
        if not site.promises("transactional"):
            return
        process, notes = site.process(), Notes()
        process.consume(notes)

        with site.harness.atomic() as using:
            process.broker.publish_in_transaction(made(1), using)
            began = time.monotonic()
            wait_until(lambda: time.monotonic() > began + 0.5)
            assert notes.numbers == []

        wait_until(lambda: notes.numbers == [1])

    def test_what_is_rolled_back_never_was(self, site: Site) -> None:
        if not site.promises("transactional"):
            return
        process, notes = site.process(), Notes()
        process.consume(notes)

        with pytest.raises(RolledBackError), site.harness.atomic() as using:
            process.broker.publish_in_transaction(made(1), using)
            raise RolledBackError

        process.send(2)
        wait_until(lambda: notes.handled)
        process.wait_until_quiet()
        assert notes.numbers == [2]

    def test_a_database_that_is_not_its_own_is_refused(self, site: Site) -> None:
        if not site.promises("transactional"):
            return
        process = site.process()
        process.consume(print)

        with pytest.raises(ConfigurationError):
            process.broker.publish_in_transaction(made(1), "no_such_alias")

    def test_a_closed_broker_refuses(self, site: Site) -> None:
        if not site.promises("transactional"):
            return
        process = site.process()
        process.consume(print)
        process.close()

        with site.harness.atomic() as using, pytest.raises(BrokerClosedError):
            process.broker.publish_in_transaction(made(1), using)
