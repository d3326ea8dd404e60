"""Where an event waits: for the commit of a transaction, or in a test's capture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

from django_gomq.commit import Pending, add_pending, open_transaction
from django_gomq.options import Options
from django_gomq.outgoing import Outgoing, decoded, publish_committed, roll_back
from django_gomq.planning import Plan
from django_gomq.receipt import Receipt, State
from django_gomq.testing.capture import CapturedEvents
from django_gomq.wiring import Site


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
        (one for one in blocks if not getattr(one, "_from_testcase", False)), None
    )


def hold(
    outgoing: Sequence[Outgoing],
    connection: BaseDatabaseWrapper | None,
    captured: CapturedEvents | None,
) -> None:
    """Keep events for the commit, or for the test that captures them."""
    if captured is not None:
        for one in outgoing:
            one.receipts[:] = [
                _capture(receipt, one.plan, connection, captured)
                for receipt in one.receipts
            ]
        return
    assert connection is not None  # noqa: S101 - else they would be published now
    if outgoing[0].plan.broker.hooks.publish_watchers:  # all brokers share their hooks
        outgoing = [_with_parents(one) for one in outgoing]
    add_pending(connection, Pending(outgoing, publish_committed, roll_back))


def _with_parents(outgoing: Outgoing) -> Outgoing:
    messages = [one.message for one in outgoing.receipts]
    parents = outgoing.plan.broker.hooks.prepare(messages)
    return Outgoing(
        outgoing.plan, outgoing.site, outgoing.strict, outgoing.receipts, parents
    )


def _capture(
    waiting: Receipt,
    plan: Plan,
    connection: BaseDatabaseWrapper | None,
    captured: CapturedEvents,
) -> Receipt:
    message = decoded(waiting.message, plan)
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

    add_pending(connection, Pending((receipt,), _accept_all, take_back))
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
