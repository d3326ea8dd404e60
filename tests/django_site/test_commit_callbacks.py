from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any
from unittest import mock

import pytest
from django.db import connection, connections, transaction
from django.db.transaction import TransactionManagementError
from django.test import TestCase

from django_gomq import (
    Message,
    NoConsumerError,
    PublishError,
    Receipt,
    capturing,
    emit,
    get_broker,
    outgoing,
)
from django_gomq.bus.broker import Broker
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import Seen, Undo, fill, hold, listen, wait_quiet

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@pytest.fixture
def seen(live_site: UseSite) -> Seen:
    seen = listen("page.viewed")
    live_site()
    return seen


def fail() -> None:
    raise Undo


def test_an_emit_in_a_callback_is_published_at_once(seen: Seen) -> None:
    states: list[str] = []

    with transaction.atomic():
        transaction.on_commit(lambda: states.append(emit("page.viewed", 1).state))
        emit("page.viewed", 2)

    seen.wait_for(2)
    assert states == ["accepted"]


def test_a_transaction_inside_a_callback_is_not_taken_for_the_ended_one(
    seen: Seen,
) -> None:
    def callback() -> None:
        with pytest.raises(Undo), transaction.atomic():
            transaction.on_commit(lambda: None)
            emit("page.viewed", "lost")
            raise Undo
        with transaction.atomic():
            emit("page.viewed", "inner")

    with transaction.atomic():
        transaction.on_commit(callback)
        emit("page.viewed", "outer")

    wait_quiet()
    assert sorted(seen.data) == ["inner", "outer"]
    assert get_broker().stats().queues["page.viewed"].rolled_back == 1


def test_events_stay_one_batch_where_callbacks_before_them_are_rolled_back(
    seen: Seen,
) -> None:
    with transaction.atomic():
        with pytest.raises(Undo), transaction.atomic():
            transaction.on_commit(lambda: None)
            emit("page.viewed", "lost")
            raise Undo
        transaction.on_commit(lambda: None)
        emit("page.viewed", 1)
        emit("page.viewed", 2)
        entries = len(connection.run_on_commit)

    seen.wait_for(2)
    assert seen.data == [1, 2]
    assert entries == 2


def test_a_failing_flush_breaks_neither_the_commit_nor_other_callbacks(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []

    def break_down(*args: object, **options: object) -> list[PublishError | None]:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(Broker, "hand_over_many", break_down)
    with transaction.atomic():
        transaction.on_commit(lambda: ran.append(1))
        emit("page.viewed", 2)
        transaction.on_commit(lambda: ran.append(3))

    assert ran == [1, 3]


def test_a_failing_callback_of_others_that_is_robust_does_not_stop_the_flush(
    seen: Seen,
) -> None:
    def break_down() -> None:
        raise RuntimeError

    with transaction.atomic():
        transaction.on_commit(break_down, robust=True)
        emit("page.viewed", 1)

    seen.wait_for(1)


def test_a_callback_of_others_that_raises_keeps_back_no_event_behind_it(
    seen: Seen,
) -> None:
    with pytest.raises(Undo), transaction.atomic():
        transaction.on_commit(fail)
        receipts = [emit("page.viewed", number) for number in range(2)]

    seen.wait_for(2)
    assert [receipt.state for receipt in receipts] == ["accepted", "accepted"]
    assert get_broker().stats().queues["page.viewed"].rolled_back == 0


def test_nor_does_one_that_ends_the_thread_which_waits_for_no_room_then(
    live_site: UseSite,
) -> None:
    held = hold("page.viewed")
    live_site(BROKERS={"default": {"OPTIONS": {"capacity": 2}}}, FLUSH_TIMEOUT=1000)
    fill("page.viewed", held, 1)

    with pytest.raises(SystemExit), transaction.atomic():
        transaction.on_commit(sys.exit)
        receipts = [emit("page.viewed", number) for number in range(2)]

    held.release.set()
    wait_quiet()
    assert [receipt.reason or receipt.state for receipt in receipts] == [
        "accepted",
        "queue_full",
    ]


def test_callbacks_that_are_run_inside_a_block_publish_nothing_before_its_commit(
    seen: Seen,
) -> None:
    with pytest.raises(Undo), transaction.atomic():
        lost = emit("page.viewed", "lost")
        with pytest.raises(TransactionManagementError):
            connection.run_and_clear_commit_hooks()
        state = lost.state
        raise Undo
    with transaction.atomic():
        kept = emit("page.viewed", "kept")
        with pytest.raises(TransactionManagementError):
            connection.run_and_clear_commit_hooks()

    wait_quiet()
    assert (state, lost.reason, kept.state) == ("pending", "rolled_back", "accepted")
    assert seen.data == ["kept"]


def test_a_patch_of_the_connection_that_has_ended_changes_nothing(seen: Seen) -> None:
    vars(connections["default"]).pop(
        "run_and_clear_commit_hooks", None
    )  # as on a new connection
    real = connection.run_and_clear_commit_hooks
    with (
        mock.patch.object(connection, "run_and_clear_commit_hooks", side_effect=real),
        transaction.atomic(),
    ):
        emit("page.viewed", 1)
    with pytest.raises(Undo), transaction.atomic():
        transaction.on_commit(fail)
        receipt = emit("page.viewed", 2)
    with pytest.raises(NoConsumerError), transaction.atomic():
        emit("no.body", strict=True)

    seen.wait_for(2)
    assert receipt.state == "accepted"


def test_transactions_add_nothing_to_a_function_that_wraps_the_callbacks(
    seen: Seen,
) -> None:
    with transaction.atomic():
        emit("page.viewed", 0)
    real = connection.run_and_clear_commit_hooks
    depths: list[int] = []

    def note_depth() -> None:
        frame: FrameType | None = sys._getframe()
        depths.append(0)
        while frame is not None:
            depths[-1], frame = depths[-1] + 1, frame.f_back
        real()

    with mock.patch.object(connection, "run_and_clear_commit_hooks", note_depth):
        for number in range(1, 4):
            with suppress(Undo), transaction.atomic():
                transaction.on_commit(fail)
                emit("page.viewed", number)

    seen.wait_for(4)
    assert len(depths) == 3
    assert len(set(depths)) == 1


def test_of_two_databases_either_may_have_a_callback_that_raises(seen: Seen) -> None:
    receipts: list[Receipt] = []

    for failing in ("default", "other"):
        with (
            suppress(Undo),
            transaction.atomic(),
            suppress(Undo),
            transaction.atomic(using="other"),
        ):
            transaction.on_commit(fail, using=failing)
            receipts.append(emit("page.viewed", failing))

    seen.wait_for(2)
    assert [receipt.state for receipt in receipts] == ["accepted", "accepted"]


def test_what_was_rolled_back_is_published_by_no_callback_of_a_later_commit(
    seen: Seen,
) -> None:
    with pytest.raises(Undo), transaction.atomic():
        receipt = emit("page.viewed", "lost")
        kept = connection.run_on_commit[-1]  # as a traceback would
        raise Undo
    with pytest.raises(Undo), transaction.atomic():
        transaction.on_commit(fail)
    with pytest.raises(Undo), transaction.atomic():
        transaction.on_commit(fail)
        emit("page.viewed", 1)

    seen.wait_for(1)
    assert seen.data == [1]
    assert (kept is not None, receipt.state) == (True, "pending")


def test_one_transaction_is_one_callback_and_one_batch(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    hand_over_many = Broker.hand_over_many

    def note(
        broker: Broker, messages: Sequence[Message[int]], *more: Any
    ) -> list[PublishError | None]:
        batches.append(len(messages))
        return hand_over_many(broker, messages, *more)

    monkeypatch.setattr(Broker, "hand_over_many", note)
    with transaction.atomic():
        transaction.on_commit(lambda: None)
        emit("page.viewed", 1)
        transaction.on_commit(lambda: None)
        emit("page.viewed", 2)
        with transaction.atomic():
            emit("page.viewed", 3)
        ours = [entry for entry in connection.run_on_commit if "gomq" in repr(entry)]

    seen.wait_for(3)
    assert len(ours) == 1
    assert batches == [3]


def test_ten_thousand_events_and_a_hundred_rollbacks_cost_one_entry_each_time(
    live_site: UseSite,
) -> None:
    looked_at: list[int] = []
    seen = listen("page.viewed", capacity=20_000)
    live_site(BROKERS={"default": {"OPTIONS": {"capacity": 20_000}}})

    with transaction.atomic():
        for block in range(100):
            with transaction.atomic():
                for number in range(100):
                    emit("page.viewed", (block, number))
            with pytest.raises(Undo), transaction.atomic():
                emit("page.viewed", "lost")
                looked_at.append(len(connection.run_on_commit))
                raise Undo

    seen.wait_for(10_000)
    assert looked_at == [1] * 100
    assert get_broker().stats().queues["page.viewed"].rolled_back == 100


def test_a_commit_in_a_request_waits_for_room_only_so_long(live_site: UseSite) -> None:
    held = hold("page.viewed")
    live_site(BROKERS={"default": {"OPTIONS": {"capacity": 1}}}, FLUSH_TIMEOUT=0.01)
    fill("page.viewed", held, 1)

    with transaction.atomic():
        receipt = emit("page.viewed", 1)

    held.release.set()
    assert receipt.reason == "timeout"


@pytest.mark.parametrize(
    ("serves", "expected"), [(True, 7000.0), (False, 86_400.0 * 365)]
)
def test_a_commit_waits_for_room_without_limit_where_nobody_waits_for_an_answer(
    use_site: UseSite,
    monkeypatch: pytest.MonkeyPatch,
    serves: bool,
    expected: float,
) -> None:
    waits: list[float | None] = []
    listen("page.viewed")
    use_site(FLUSH_TIMEOUT=7000.0)
    monkeypatch.setattr(capturing, "is_test_environment", lambda: False)
    monkeypatch.setattr(outgoing, "serves_requests", lambda: serves)

    def note(
        broker: Broker,
        messages: Sequence[Message[int]],
        timeout: float | None,
        parents: object,
    ) -> list[PublishError | None]:
        waits.append(timeout)
        return [None] * len(messages)

    monkeypatch.setattr(Broker, "hand_over_many", note)
    with transaction.atomic():
        emit("page.viewed", 1)
        emit("page.viewed", 2)

    assert waits == [pytest.approx(expected, abs=600)]


@pytest.mark.parametrize("execute", [True, False])
def test_captured_callbacks_publish_what_their_block_emitted(
    seen: Seen, execute: bool
) -> None:
    with transaction.atomic():
        for number in range(2):
            with TestCase.captureOnCommitCallbacks(execute=execute) as callbacks:
                emit("page.viewed", number)
            if not execute:
                callbacks[0]()
            seen.wait_for(number + 1)
        transaction.set_rollback(True)

    assert seen.data == [0, 1]
