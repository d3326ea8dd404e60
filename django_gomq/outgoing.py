"""Emitted events on their way: kept for a commit, or handed to their brokers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from django.db.backends.base.base import BaseDatabaseWrapper

from django_gomq.bus.broker import Broker
from django_gomq.bus.data.codec import decode_as
from django_gomq.bus.delivery import Delivery, receive
from django_gomq.bus.errors import (
    ConfigurationError,
    NoConsumerError,
    PublishError,
    PublishUnknownError,
    did_you_mean,
)
from django_gomq.bus.message import Message
from django_gomq.bus.process.fork import hurried
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.bus.process.timers import Deadline
from django_gomq.capturing import (
    Capture,
    Entry,
    Watcher,
    capture_of,
    captures,
    is_forced,
    is_in_test_case,
    own_block,
)
from django_gomq.commit import PendingBatch, add_pending, open_transactions
from django_gomq.emitters import Emitter
from django_gomq.options import Options, Receipt, State
from django_gomq.process.role import serves_requests
from django_gomq.site import Site

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
    timeout: float | None = None
    """Seconds that emit was told to wait for room."""
    parents: tuple[object, ...] = ()
    """What the hooks kept of the moment of emit."""


def decoded(message: Message[Any], emitter: Emitter) -> Message[Any]:
    """Return the message as a consumer would see it, for those who capture it."""
    event_class = emitter.event_class
    decoders = {} if event_class is None else {message.type: decode_as(event_class)}
    return receive(Delivery(message, 0.0), decoders)


def publish_now(
    items: Sequence[EmitBatch], timeout: float | None, *, for_room: bool = False
) -> None:
    """Hand events over in their order, as one batch for each broker.

    ``timeout`` bounds the call, or ``for_room`` alone: then a server's answer is waited
    for as long as its backend says. Raises the first refusal that ``strict`` or its
    broker want raised, after all were tried.
    """
    first = items[0]
    if len(items) == len(first.receipts) == 1 and not first.parents:
        publish_one(first, _limit(first.emitter.broker, timeout, for_room=for_room))
        return
    deadline = Deadline.after(timeout)
    refusals: list[PublishError] = []
    for broker, group in _by_broker(items):
        limit = _limit(broker, deadline.left(), for_room=for_room)
        refusals += _publish_group(broker, group, limit)
    if refusals:
        raise refusals[0]


def _limit(broker: Broker, timeout: float | None, *, for_room: bool) -> float | None:
    """Return the seconds for one broker; None where its backend has a limit itself."""
    return None if for_room and broker.capabilities.durable else timeout


def _publish_group(
    broker: Broker, group: Sequence[EmitBatch], timeout: float | None
) -> list[PublishError]:
    """Hand over, chunk by chunk; return the refusals that are to be raised."""
    deadline = Deadline.after(timeout)
    receipts = [receipt for batch in group for receipt in batch.receipts]
    parents = [batch.parents for batch in group for _ in batch.receipts]
    watched = parents if any(parents) else ()
    batches = [batch for batch in group for _ in batch.receipts]
    raised: list[PublishError] = []
    for start in range(0, len(receipts), CHUNK):
        part = slice(start, start + CHUNK)
        left = deadline.left()
        if timeout and not left:
            left = _MOMENT  # none would be no limit at a server
        answers = _publish_chunk(broker, receipts[part], left, watched[part])
        if any(answers):
            raised += [
                error
                for batch, receipt, error in zip(
                    batches[part], receipts[part], answers, strict=True
                )
                if error is not None and refuse(batch, receipt, error)
            ]
    return raised


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
        read = outgoing.site.config.autodiscover
        _warn_once(receipt.message.type, outgoing.emitter.broker, read)
    return rule == "raise" or (rule != "ignore" and bool(outgoing.strict))


def _no_consumer(outgoing: EmitBatch) -> str:
    return outgoing.emitter.no_consumer or outgoing.site.config.no_consumer


def _raises_refusals(outgoing: EmitBatch) -> bool:
    if outgoing.strict is not None:
        return outgoing.strict
    broker = outgoing.emitter.broker
    wanted = outgoing.site.config.brokers[broker.alias].on_refused
    return broker.capabilities.durable if wanted is None else wanted == "raise"


def publish_committed(items: Sequence[EmitBatch], may_wait: bool) -> None:
    """Hand over what a commit made true, and was not handed over before.

    Waits for room, ``FLUSH_TIMEOUT`` in a request, without limit where publishers may
    wait: a loop of emits may outrun the consumers.
    """
    if not may_wait:  # once more
        items = [item for item in map(_still_pending, items) if item.receipts]
        with hurried():
            if items:
                publish_now(items, None)
    elif serves_requests():
        _publish_in_request(items)
    else:
        publish_now(items, _NO_LIMIT, for_room=True)


def _publish_in_request(items: Sequence[EmitBatch]) -> None:
    limit = items[0].site.config.flush_timeout
    given = max((batch.timeout or 0.0 for batch in items), default=0.0)
    if given:
        publish_now(items, max(limit, given))
        return
    # One consumer that is stuck shall not cost the others what requests emit.
    with hurried():
        publish_now(items, limit, for_room=True)


def _still_pending(outgoing: EmitBatch) -> EmitBatch:
    left = [receipt for receipt in outgoing.receipts if receipt.state == "pending"]
    return msgspec.structs.replace(outgoing, receipts=left)


_NO_LIMIT: Final = 86_400.0 * 365
_MOMENT: Final = 0.001


def roll_back(outgoing: EmitBatch) -> None:
    """Note that a rollback took the events back."""
    emitter, receipts = outgoing.emitter, outgoing.receipts
    emitter.broker.count_rolled_back(emitter.event_type, len(receipts))
    for receipt in receipts:
        receipt.refuse("rolled_back")


_warned: set[str] = set()


def _warn_once(event_type: str, broker: Broker, read: Sequence[str]) -> None:
    if event_type in _warned or len(_warned) >= MAX_WARNED:
        return
    _warned.add(event_type)
    known = {text for consumer in broker.consumers for text in consumer.types}
    line = partial(
        write_log,
        logger,
        logging.WARNING,
        "Event %s has no consumer: none in the modules that GOMQ['AUTODISCOVER'] "
        "names (%s of each app), none registered later; this is said once per type%s",
        event_type,
        ", ".join(read) or "none",
        did_you_mean(event_type, known),
        fields={"gomq_event": event_type, "gomq_broker": broker.alias},
    )
    broker.hooks.hand_over(line)


def find_transactions(
    site: Site,
    options: Options,
    is_open: Callable[[BaseDatabaseWrapper], bool] | None = None,
) -> Sequence[BaseDatabaseWrapper]:
    """Return the connections whose commits the event waits for; none: publish now."""
    on_commit = options.on_commit
    if not (site.config.emit_on_commit if on_commit is None else on_commit):
        return ()
    return open_transactions(options.using, site.config.emit_using, is_open)


def defer(
    outgoing: Sequence[EmitBatch], connections: Sequence[BaseDatabaseWrapper]
) -> None:
    """Keep events for the commits."""
    waiting = []
    for batch in outgoing:
        if batch.emitter.broker.capabilities.transactional:
            _write_into_transaction(batch, connections)
        else:
            waiting.append(batch)
    if waiting and waiting[0].emitter.broker.hooks.publish_watchers:
        # All brokers share their hooks.
        waiting = [_with_parents(batch) for batch in waiting]
    if waiting:
        raises = any(map(_may_raise, waiting))
        pending = PendingBatch(waiting, publish_committed, roll_back, raises)
        add_pending(connections, pending)


def _may_raise(outgoing: EmitBatch) -> bool:
    """Whether the commit may have to raise; every event of a transaction asks."""
    emitter = outgoing.emitter
    if outgoing.strict is None and emitter.may_raise is not None:
        return emitter.may_raise
    found = _raises_refusals(outgoing) or _no_consumer(outgoing) == "raise"
    if outgoing.strict is None:
        emitter.may_raise = found
    return found


def _write_into_transaction(
    batch: EmitBatch, connections: Sequence[BaseDatabaseWrapper]
) -> None:
    """Publish inside the transaction: what is rolled back never existed."""
    broker = batch.emitter.broker
    if len(connections) > 1:
        aliases = " and ".join(repr(connection.alias) for connection in connections)
        raise ConfigurationError(
            f"Transactions of {aliases} are open, and broker {broker.alias!r} writes "
            "into one: name it with using=, or for all in GOMQ['EMIT_USING'].",
            event=batch.emitter.event_type,
            broker=broker.alias,
        )
    messages = [receipt.message for receipt in batch.receipts]
    broker.publish_in_transaction(messages, connections[0].alias)
    add_pending(connections, PendingBatch((batch,), _note_commit, roll_back))


def _note_commit(batches: Iterable[EmitBatch], may_wait: bool) -> None:
    for batch in batches:
        emitter = batch.emitter
        emitter.broker.count_committed(emitter.event_type, len(batch.receipts))
        _accept_all(batch.receipts, may_wait)


def _with_parents(outgoing: EmitBatch) -> EmitBatch:
    messages = [receipt.message for receipt in outgoing.receipts]
    parents = outgoing.emitter.broker.hooks.prepare(messages)
    return msgspec.structs.replace(outgoing, parents=parents)


def hand_to_captures(
    outgoing: Sequence[EmitBatch], options: Options
) -> list[EmitBatch]:
    """Give events to the tests that capture them; return those that none does.

    Those who watch events hear of all of them. Raises NoConsumerError where
    ``NO_CONSUMER`` or ``strict`` want it raised.
    """
    takers = [(batch, capture_of(batch.emitter.event_type)) for batch in outgoing]
    taken = [(batch, capture) for batch, capture in takers if capture is not None]
    if taken:
        connections = find_transactions(outgoing[0].site, options, _is_open_in_test)
        answers = [_unheard_in_test(batch) for batch, _ in taken]
        for (batch, capture), unheard in zip(taken, answers, strict=True):
            batch.receipts[:] = [
                _capture(receipt, batch.emitter, connections, capture, unheard)
                for receipt in batch.receipts
            ]
        for capture in {id(capture): capture for _, capture in taken}.values():
            capture.run_due()
    _tell_watchers(outgoing, options)
    left = [batch for batch, capture in takers if capture is None]
    if left and is_forced() and is_in_test_case():
        raise ConfigurationError(NEVER_COMMITS)
    return left


def _tell_watchers(outgoing: Sequence[EmitBatch], options: Options) -> None:
    watchers = [found for found in captures[:] if isinstance(found, Watcher)]
    if not watchers or not outgoing:
        return
    waits = bool(find_transactions(outgoing[0].site, options))
    for batch in outgoing:
        for watcher in watchers:
            watcher.see(batch.receipts, batch.emitter.broker, waits=waits)


NEVER_COMMITS: Final = (
    "live() inside TestCase, or the db fixture of pytest-django, handles nothing: its "
    "transaction never commits. Use TransactionTestCase, or "
    "@pytest.mark.django_db(transaction=True); or inline(), which runs handlers when "
    "the test's own atomic block is left."
)


def _is_open_in_test(connection: BaseDatabaseWrapper) -> bool:
    return own_block(connection) is not None


def _unheard_in_test(outgoing: EmitBatch) -> NoConsumerError | None:
    """Return what the receipts of these say where nobody consumes their type."""
    event_type, broker = outgoing.emitter.event_type, outgoing.emitter.broker
    if any(consumer.subscribes_to(event_type) for consumer in broker.consumers):
        return None
    if broker.capabilities.durable:
        return None  # who consumes may run elsewhere
    error = NoConsumerError(
        f"No consumer subscribes to {event_type!r}.",
        event=event_type,
        broker=broker.alias,
    )
    rule = _no_consumer(outgoing)
    if rule == "raise" or (rule != "ignore" and outgoing.strict):
        raise error
    return error


def _capture(
    waiting: Receipt,
    emitter: Emitter,
    connections: Sequence[BaseDatabaseWrapper],
    capture: Capture,
    unheard: NoConsumerError | None,
) -> Receipt:
    message = decoded(waiting.message, emitter)
    if not connections:
        capture.record(Entry(message, emitter.broker, lambda: False))
        _settle_in_test(waiting, unheard)
        return waiting
    blocks = [(connection, own_block(connection)) for connection in connections]

    def is_open() -> bool:
        return any(block in connection.atomic_blocks for connection, block in blocks)

    receipt = _CapturedReceipt(waiting.message, is_open=is_open, unheard=unheard)
    forget = capture.record(Entry(message, emitter.broker, is_open))

    def take_back(_: Receipt) -> None:
        receipt.refuse("rolled_back")
        forget()

    add_pending(connections, PendingBatch((receipt,), _settle_all, take_back))
    return receipt


def _settle_in_test(receipt: Receipt, unheard: NoConsumerError | None) -> None:
    if unheard is None:
        receipt.accept()
    else:
        receipt.refuse(unheard.code, unheard)


class _CapturedReceipt(Receipt, kw_only=True, eq=False):
    """Settled once the test's own block is left: a TestCase never commits."""

    is_open: Callable[[], bool]
    unheard: NoConsumerError | None
    told: State = "pending"
    told_reason: str | None = None

    def _get_state(self) -> State:
        if self.told == "pending" and not self.is_open():
            _settle_in_test(self, self.unheard)
        return self.told

    def _set_state(self, state: State) -> None:
        self.told = state

    def _get_reason(self) -> str | None:
        self._get_state()
        return self.told_reason

    def _set_reason(self, reason: str | None) -> None:
        self.told_reason = reason

    # In the place of Receipt's fields, as if leaving the block had been a commit.
    state = property(_get_state, _set_state)
    reason = property(_get_reason, _set_reason)


def _settle_all(receipts: Iterable[_CapturedReceipt], may_wait: bool) -> None:
    for receipt in receipts:
        _settle_in_test(receipt, receipt.unheard)


def _accept_all(receipts: Iterable[Receipt], may_wait: bool) -> None:
    for receipt in receipts:
        receipt.accept()
