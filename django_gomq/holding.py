"""Where an event waits: for the commit of a transaction, or in a test's capture."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from django.db.backends.base.base import BaseDatabaseWrapper

from django_gomq.bus.message import Message
from django_gomq.commit import Pending, add_pending, open_transaction
from django_gomq.outgoing import Outgoing, decoded, publish_committed, roll_back
from django_gomq.receipt import Receipt, State
from django_gomq.testing.capture import CapturedEvents
from django_gomq.wiring import Site


def find_transaction(
    site: Site,
    using: str | None,
    on_commit: bool | None,
    captured: CapturedEvents | None,
) -> BaseDatabaseWrapper | None:
    """Return the connection whose commit the event waits for; None: publish now."""
    waits = site.config.emit_on_commit if on_commit is None else on_commit
    if not waits:
        return None
    return open_transaction(using, _is_open if captured is None else _is_open_in_test)


def _is_open(connection: BaseDatabaseWrapper) -> bool:
    return connection.in_atomic_block


def _is_open_in_test(connection: BaseDatabaseWrapper) -> bool:
    return _own_block(connection) is not None


def _own_block(connection: BaseDatabaseWrapper) -> object | None:
    """Return the outermost atomic block that is not TestCase's own."""
    blocks = connection.atomic_blocks
    return next(
        (one for one in blocks if not getattr(one, "_from_testcase", False)), None
    )


def hold(
    prepared: Outgoing,
    connection: BaseDatabaseWrapper | None,
    captured: CapturedEvents | None,
) -> Receipt:
    """Keep an event for the commit, or for the test that captures it."""
    if captured is not None:
        return _capture(prepared, connection, captured)
    assert connection is not None  # noqa: S101 - else it would be published now
    parents = prepared.broker.hooks.capture_contexts()
    kept = msgspec.structs.replace(prepared, parents=parents) if parents else prepared
    add_pending(connection, Pending(kept, publish_committed, roll_back))
    return prepared.receipt


def _capture(
    prepared: Outgoing,
    connection: BaseDatabaseWrapper | None,
    captured: CapturedEvents,
) -> Receipt:
    message = decoded(prepared)
    if connection is None:
        captured.record(message)
        prepared.receipt.accept()
        return prepared.receipt
    block = _own_block(connection)

    def is_open() -> bool:
        return block in connection.atomic_blocks

    receipt = _CapturedReceipt(prepared.message, is_open)
    forget = captured.record(message, is_open)

    def take_back(_: Receipt) -> None:
        receipt.refuse("rolled_back")
        forget()

    add_pending(connection, Pending(receipt, _accept_all, take_back))
    return receipt


class _CapturedReceipt(Receipt):
    """Accepted once the test's own block is left: a TestCase never commits."""

    __slots__ = ("_is_open", "_state")

    def __init__(self, message: Message[Any], is_open: Callable[[], bool]) -> None:
        self._is_open = is_open
        super().__init__(message)

    @property
    def state(self) -> State:
        """Where the event is, as if leaving the block had been a commit."""
        if self._state == "pending" and not self._is_open():
            return "accepted"
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        self._state: State = state


def _accept_all(receipts: Iterable[Receipt]) -> None:
    for receipt in receipts:
        receipt.accept()
