"""Emitted events on their way: kept for a commit, or handed to their brokers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from django.db.backends.base.base import BaseDatabaseWrapper

from django_gomq.bus.broker import Broker
from django_gomq.bus.codec import decode_as
from django_gomq.bus.delivery import Delivery, receive
from django_gomq.bus.errors import NoConsumerError, PublishError, PublishUnknownError
from django_gomq.bus.message import Message
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.bus.process.timers import Deadline
from django_gomq.commit import PendingBatch, add_pending, open_transaction
from django_gomq.emitters import Emitter
from django_gomq.options import Options, Receipt, State
from django_gomq.process_role import serves_requests
from django_gomq.site import Site
from django_gomq.testing.capture import CapturedEvents

logger = logging.getLogger("gomq.emit")

CHUNK: Final = 256
"""So many are handed over in one call; an exception leaves only these in doubt."""
MAX_WARNED: Final = 1000  # names of types may be data; these are remembered as told


class EmitBatch(msgspec.Struct, frozen=True, eq=False):
    """Events of one emitter that one call emitted, in their order."""

    emitter: Emitter
    site: Site
    strict: bool | None
    receipts: list[Receipt]
    """One for each; it holds the message."""
    parents: tuple[object, ...] = ()
    """What the hooks kept of the moment of emit."""


def decoded(message: Message[Any], emitter: Emitter) -> Message[Any]:
    """Return the message as a consumer would see it, for those who capture it."""
    event_class = emitter.event_class
    decoders = {} if event_class is None else {message.type: decode_as(event_class)}
    return receive(Delivery(message, 0.0), decoders)


def publish_now(items: Sequence[EmitBatch], timeout: float | None) -> None:
    """Hand events over in their order, as one batch for each broker.

    ``timeout`` bounds the call. Raises the first refusal that ``strict`` or its broker
    want raised, after all were tried.
    """
    first = items[0]
    if len(items) == len(first.receipts) == 1 and not first.parents:
        publish_one(first, timeout)
        return
    deadline = Deadline.after(timeout)
    refusals: list[PublishError] = []
    for broker, group in _by_broker(items):
        refusals += _publish_group(broker, group, deadline.left())
    if refusals:
        raise refusals[0]


def _publish_group(
    broker: Broker, group: Sequence[EmitBatch], timeout: float | None
) -> list[PublishError]:
    """Hand over, chunk by chunk; return the refusals that are to be raised."""
    deadline = Deadline.after(timeout)
    receipts = [receipt for batch in group for receipt in batch.receipts]
    parents = [batch.parents for batch in group for _ in batch.receipts]
    watched = parents if any(parents) else ()
    answers: list[PublishError | None] = []
    for start in range(0, len(receipts), CHUNK):
        chunk = receipts[start : start + CHUNK]
        answers += _publish_chunk(
            broker, chunk, deadline.left(), watched[start : start + CHUNK]
        )
    if not any(answers):
        return []
    batches = [batch for batch in group for _ in batch.receipts]
    return [
        error
        for batch, receipt, error in zip(batches, receipts, answers, strict=True)
        if error is not None and refuse(batch, receipt, error)
    ]


def _publish_chunk(
    broker: Broker,
    receipts: Sequence[Receipt],
    timeout: float | None,
    parents: Sequence[tuple[object, ...]],
) -> list[PublishError | None]:
    """Hand over so many in one call, and note in each receipt what was taken."""
    messages = [receipt.message for receipt in receipts]
    try:
        answers = broker.hand_over_many(messages, timeout, parents)
        for receipt, error in zip(receipts, answers, strict=True):
            if error is None:
                receipt.state = "accepted"
    except BaseException:  # a signal handler's: some of these may have been taken
        for receipt in receipts:
            if receipt.state == "pending":
                receipt.doubt()
        raise
    return answers


def publish_one(outgoing: EmitBatch, timeout: float | None) -> None:
    """Hand over one event that no hook has looked at; else as ``publish_now``."""
    (receipt,) = outgoing.receipts
    try:
        outgoing.emitter.broker.hand_over(receipt.message, timeout)
    except PublishError as error:
        if refuse(outgoing, receipt, error):
            raise
    else:
        receipt.accept()


def _by_broker(
    items: Sequence[EmitBatch],
) -> Iterable[tuple[Broker, Sequence[EmitBatch]]]:
    groups: dict[Broker, list[EmitBatch]] = {}
    for batch in items:
        groups.setdefault(batch.emitter.broker, []).append(batch)
    return groups.items()


def refuse(outgoing: EmitBatch, receipt: Receipt, error: PublishError) -> bool:
    """Tell the receipt; warn once where nobody consumes the type.

    Returns whether the refusal is to be raised.
    """
    if isinstance(error, PublishUnknownError):
        receipt.doubt(error)
        return _raises_refusals(outgoing)
    receipt.refuse(error.code, error)
    if not isinstance(error, NoConsumerError):
        return _raises_refusals(outgoing)
    rule = _no_consumer(outgoing)
    if rule == "warn":
        _warn_once(receipt.message.type, outgoing.emitter.broker)
    return rule == "raise" or (rule != "ignore" and bool(outgoing.strict))


def _no_consumer(outgoing: EmitBatch) -> str:
    event_class = outgoing.emitter.event_class
    wanted = event_class.__no_consumer__ if event_class is not None else None
    return wanted or outgoing.site.config.no_consumer


def _raises_refusals(outgoing: EmitBatch) -> bool:
    if outgoing.strict is not None:
        return outgoing.strict
    broker = outgoing.emitter.broker
    wanted = outgoing.site.config.brokers[broker.alias].on_refused
    return broker.capabilities.durable if wanted is None else wanted == "raise"


def publish_committed(items: Sequence[EmitBatch], may_wait: bool) -> None:
    """Hand over what a commit made true, and was not handed over before.

    Waits for room, ``FLUSH_TIMEOUT`` in a request, without limit in a management
    command: there nobody waits, and a loop of emits may outrun the consumers.
    """
    timeout: float | None = None
    if may_wait:
        config = items[0].site.config
        timeout = config.flush_timeout if serves_requests() else _NO_LIMIT
    else:  # once more
        items = [item for item in map(_still_pending, items) if item.receipts]
    if items:
        publish_now(items, timeout)


def _still_pending(outgoing: EmitBatch) -> EmitBatch:
    left = [receipt for receipt in outgoing.receipts if receipt.state == "pending"]
    return msgspec.structs.replace(outgoing, receipts=left)


_NO_LIMIT: Final = 86_400.0 * 365


def roll_back(outgoing: EmitBatch) -> None:
    """Note that a rollback took the events back."""
    emitter, receipts = outgoing.emitter, outgoing.receipts
    emitter.broker.count_rolled_back(emitter.event_type, len(receipts))
    for receipt in receipts:
        receipt.refuse("rolled_back")


_warned: set[str] = set()


def _warn_once(event_type: str, broker: Broker) -> None:
    if event_type in _warned or len(_warned) >= MAX_WARNED:
        return
    _warned.add(event_type)
    line = partial(
        write_log,
        logger,
        logging.WARNING,
        "Event %s has no consumer; this is said once per type",
        event_type,
        fields={"gomq_event": event_type, "gomq_broker": broker.alias},
    )
    broker.hooks.hand_over(line)


def find_transaction(
    site: Site, options: Options, captured: CapturedEvents | None
) -> BaseDatabaseWrapper | None:
    """Return the connection whose commit the event waits for; None: publish now."""
    on_commit = options.on_commit
    if not (site.config.emit_on_commit if on_commit is None else on_commit):
        return None
    is_open = None if captured is None else _is_open_in_test
    return open_transaction(options.using, is_open)


def _is_open_in_test(connection: BaseDatabaseWrapper) -> bool:
    return _own_block(connection) is not None


def _own_block(connection: BaseDatabaseWrapper) -> object | None:
    """Return the outermost atomic block that is not TestCase's own."""
    blocks = connection.atomic_blocks
    return next(
        (block for block in blocks if not getattr(block, "_from_testcase", False)), None
    )


def defer(
    outgoing: Sequence[EmitBatch],
    connection: BaseDatabaseWrapper | None,
    captured: CapturedEvents | None,
) -> None:
    """Keep events for the commit, or for the test that captures them."""
    if captured is not None:
        for batch in outgoing:
            batch.receipts[:] = [
                _capture(receipt, batch.emitter, connection, captured)
                for receipt in batch.receipts
            ]
        return
    assert connection is not None  # noqa: S101 - else they would be published now
    waiting = []
    for batch in outgoing:
        if batch.emitter.broker.capabilities.transactional:
            _write_into_transaction(batch, connection)
        else:
            waiting.append(batch)
    if waiting and waiting[0].emitter.broker.hooks.publish_watchers:
        # All brokers share their hooks.
        waiting = [_with_parents(batch) for batch in waiting]
    if waiting:
        add_pending(connection, PendingBatch(waiting, publish_committed, roll_back))


def _write_into_transaction(batch: EmitBatch, connection: BaseDatabaseWrapper) -> None:
    """Publish inside the transaction: what is rolled back never existed."""
    messages = [receipt.message for receipt in batch.receipts]
    batch.emitter.broker.publish_in_transaction(messages, connection.alias)
    add_pending(connection, PendingBatch((batch,), _note_commit, roll_back))


def _note_commit(batches: Iterable[EmitBatch], may_wait: bool) -> None:
    for batch in batches:
        emitter = batch.emitter
        emitter.broker.count_committed(emitter.event_type, len(batch.receipts))
        _accept_all(batch.receipts, may_wait)


def _with_parents(outgoing: EmitBatch) -> EmitBatch:
    messages = [receipt.message for receipt in outgoing.receipts]
    parents = outgoing.emitter.broker.hooks.prepare(messages)
    return EmitBatch(
        outgoing.emitter, outgoing.site, outgoing.strict, outgoing.receipts, parents
    )


def _capture(
    waiting: Receipt,
    emitter: Emitter,
    connection: BaseDatabaseWrapper | None,
    captured: CapturedEvents,
) -> Receipt:
    message = decoded(waiting.message, emitter)
    if connection is None:
        captured.record(message)
        waiting.accept()
        return waiting
    block = _own_block(connection)

    def is_open() -> bool:
        return block in connection.atomic_blocks

    receipt = _CapturedReceipt(waiting.message, is_open=is_open)
    forget = captured.record(message, is_open)

    def take_back(_: Receipt) -> None:
        receipt.refuse("rolled_back")
        forget()

    add_pending(connection, PendingBatch((receipt,), _accept_all, take_back))
    return receipt


class _CapturedReceipt(Receipt, kw_only=True, eq=False):
    """Accepted once the test's own block is left: a TestCase never commits."""

    is_open: Callable[[], bool]
    told: State = "pending"

    def _get_state(self) -> State:
        if self.told == "pending" and not self.is_open():
            return "accepted"
        return self.told

    def _set_state(self, state: State) -> None:
        self.told = state

    # In the place of Receipt's field, as if leaving the block had been a commit.
    state = property(_get_state, _set_state)


def _accept_all(receipts: Iterable[Receipt], may_wait: bool) -> None:
    for receipt in receipts:
        receipt.accept()
