"""The transaction that a handler runs in, and the inbox that stands in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from django_gomq.bus.consumer import Consumer
from django_gomq.bus.declarations.handler import Handler
from django_gomq.bus.delivery import Delivery

from .environment import Environment


class TransactionInbox(msgspec.Struct, frozen=True):
    """Where it is noted what idempotent consumers have handled."""

    database: str | None
    """The alias of the database that has it; None: the default one."""
    note: Callable[[Sequence[Delivery]], Sequence[bool]]
    """Notes deliveries in its open transaction; whether each is so the first time."""


def in_transaction(
    consumer: Consumer, environment: Environment, inbox: TransactionInbox | None
) -> Handler:
    """Return the handler, in the transaction that its options ask for, if any."""
    if consumer.idempotent and inbox is not None:
        handler = _once(consumer.handler, inbox)
        return environment.in_transaction(handler, inbox.database or True)
    if consumer.atomic:
        return environment.in_transaction(consumer.handler, consumer.atomic)
    return consumer.handler


def _once(handler: Handler, inbox: TransactionInbox) -> Handler:
    """Return the handler, called with what was not handled before, if that is any."""

    def handle(received: Any) -> Any:
        if not isinstance(received, list):
            (is_first,) = inbox.note([received.delivery])
            return handler(received) if is_first else None
        firsts = inbox.note([message.delivery for message in received])
        fresh = [
            message
            for message, is_first in zip(received, firsts, strict=True)
            if is_first
        ]
        return handler(fresh) if fresh else None

    return handle
