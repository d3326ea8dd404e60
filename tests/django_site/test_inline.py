from __future__ import annotations

import asyncio
import contextvars
import threading
import unittest
from typing import Any
from unittest.mock import patch

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, connection, transaction
from django.test import TestCase, TransactionTestCase
from django.utils import translation

from django_gomq import (
    ConfigurationError,
    Message,
    Reject,
    Retry,
    RetryLater,
    aemit,
    consumer,
    emit,
    emit_many,
    get_broker,
)
from django_gomq.bus.registry import registry
from django_gomq.site import renew
from django_gomq.testing import Ack, DeadLettered, RetryAfter, inline
from tests.django_site.clinic.events import RecordSaved
from tests.django_site.clinic.models import Record
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import Undo, listen


class _OwnConsumers(unittest.TestCase):
    """Registers consumers of its own before a test of unittest."""

    __test__ = False

    def setUp(self) -> None:
        self.addCleanup(renew)
        self.enterContext(registry.isolated())
        self.seen = listen(RecordSaved)
        renew()

    def test_a_handler_runs_when_the_outermost_block_of_the_test_is_left(self) -> None:
        with inline():
            with transaction.atomic():
                with transaction.atomic():
                    emit(RecordSaved(record_id=1))
                within = len(self.seen.messages)
            assert within == 0
            assert self.seen.data == [RecordSaved(record_id=1)]

        assert len(self.seen.messages) == 1

    def test_what_is_rolled_back_is_never_handled(self) -> None:
        with inline() as events:
            with pytest.raises(Undo), transaction.atomic():
                emit(RecordSaved(record_id=1))
                raise Undo
            with transaction.atomic():
                emit(RecordSaved(record_id=2))
                with pytest.raises(Undo), transaction.atomic():
                    emit(RecordSaved(record_id=3))
                    raise Undo
            with transaction.atomic():
                emit(RecordSaved(record_id=4))
                transaction.set_rollback(True)

        assert self.seen.data == [RecordSaved(record_id=2)]
        events.assert_emitted(RecordSaved, count=1)

    def test_without_a_block_a_handler_runs_at_the_emit(self) -> None:
        with inline():
            emit(RecordSaved(record_id=1))

            assert len(self.seen.messages) == 1

    def test_a_decorated_function_is_such_a_block(self) -> None:
        @transaction.atomic
        def save() -> None:
            Record.objects.create(patient_id=1)
            emit(RecordSaved(record_id=1))

        with inline():
            save()

            assert len(self.seen.messages) == 1


class InATestCase(_OwnConsumers, TestCase):
    __test__ = True

    def test_callbacks_of_the_commit_run_no_handler_again(self) -> None:
        with inline():
            with self.captureOnCommitCallbacks(execute=True), transaction.atomic():
                emit(RecordSaved(record_id=1))

            assert len(self.seen.messages) == 1


class InATransactionTestCase(_OwnConsumers, TransactionTestCase):
    __test__ = True


@pytest.mark.django_db
def test_handlers_see_and_write_the_rows_of_the_test(use_site: UseSite) -> None:
    @consumer(RecordSaved, name="writes", atomic=True)
    def write(message: Message[RecordSaved]) -> None:
        Record.objects.filter(pk=message.data.record_id).update(note="handled")

    @consumer(RecordSaved, name="writes.async")
    async def write_async(message: Message[RecordSaved]) -> None:
        await Record.objects.acreate(patient_id=2)

    use_site()
    with inline(), transaction.atomic():
        record = Record.objects.create(patient_id=1)
        emit(RecordSaved(record_id=record.pk))

    record.refresh_from_db()
    assert record.note == "handled"
    assert Record.objects.filter(patient_id=2).count() == 1


@pytest.mark.django_db
def test_an_error_rolls_an_atomic_handler_back(use_site: UseSite) -> None:
    @consumer("page.viewed", name="writes", atomic=True)
    def write(message: Message) -> None:
        Record.objects.create(patient_id=1)
        raise Undo

    use_site()
    with inline(), pytest.raises(Undo):
        emit("page.viewed")

    assert not Record.objects.exists()


class AsyncTests(TestCase):
    def setUp(self) -> None:
        self.addCleanup(renew)
        self.enterContext(registry.isolated())
        self.names: list[str] = []

        @consumer("page.viewed", name="sync")
        def handle(message: Message) -> None:
            self.names.append("sync")
            Record.objects.create(patient_id=1)

        @consumer("page.viewed", name="async")
        async def handle_async(message: Message) -> None:
            self.names.append("async")
            await Record.objects.acreate(patient_id=1)

        renew()

    async def test_handlers_of_both_kinds_run(self) -> None:
        with inline():
            await aemit("page.viewed")

            assert await Record.objects.acount() == 2
        assert self.names == ["sync", "async"]

    async def test_handlers_of_both_kinds_run_after_a_block(self) -> None:
        def save() -> None:
            with transaction.atomic():
                emit("page.viewed")
                self.names.append("saved")

        with inline():
            await sync_to_async(save)()

        assert self.names == ["saved", "sync", "async"]


def test_an_async_handler_cannot_run_on_the_loop_itself(use_site: UseSite) -> None:
    @consumer("page.viewed", name="one")
    async def handle(message: Message) -> None: ...

    async def emit_on_the_loop() -> None:
        with pytest.raises(ConfigurationError, match=r"await aemit\(\.\.\.\)"):
            emit("page.viewed", on_commit=False)

    use_site()
    with inline():
        asyncio.run(emit_on_the_loop())


def test_data_are_encoded_and_decoded_for_each_handler(use_site: UseSite) -> None:
    seen, other = listen("page.viewed"), listen("page.viewed", name="other")
    use_site()
    data = {"pair": (1, 2)}

    with inline():
        emit("page.viewed", data)

    assert seen.data == other.data == [{"pair": [1, 2]}]
    assert seen.data[0] is not other.data[0]


def test_each_attempt_has_a_fresh_context(use_site: UseSite) -> None:
    user = contextvars.ContextVar("user", default="nobody")
    found: list[Any] = []

    @consumer("page.viewed", name="sync", retry=Retry(attempts=2))
    def handle(message: Message) -> None:
        found.append((user.get(), message.attempt))
        user.set("left behind")
        raise Undo

    @consumer("page.viewed", name="async")
    async def handle_async(message: Message) -> None:
        found.append((user.get(), message.attempt))

    use_site()
    user.set("Ada")
    with inline(raise_errors=False), translation.override("fr"):
        emit("page.viewed")

    assert found == [("nobody", 1), ("nobody", 2), ("nobody", 1)]


def test_a_retry_is_honoured_without_waiting(use_site: UseSite) -> None:
    @consumer("page.viewed", name="third", retry=Retry(attempts=5, min_delay=30))
    def handle(message: Message) -> None:
        if message.attempt < 3:
            raise RuntimeError

    use_site()
    with inline() as events:
        emit("page.viewed", delay=200)

    assert [one.attempt for one in events.handled] == [1, 2, 3]
    assert isinstance(events.handled[0].outcome, RetryAfter)
    assert events.handled[-1].outcome == Ack()


def test_a_handler_that_wants_it_again_later_is_left_at_that(
    use_site: UseSite,
) -> None:
    @consumer("page.viewed", name="later")
    def handle(message: Message) -> None:
        raise RetryLater(30)

    use_site()
    with inline() as events:
        emit("page.viewed")

    (handled,) = events.handled
    assert isinstance(handled.outcome, RetryAfter)
    assert (handled.outcome.delay, handled.outcome.error) == (30, None)


def test_the_error_of_a_handler_is_raised_after_the_others_ran(
    use_site: UseSite,
) -> None:
    @consumer("page.viewed", name="bad")
    def handle(message: Message) -> None:
        raise Undo

    seen = listen("page.viewed")
    use_site()
    with pytest.raises(Undo) as caught, inline():
        emit("page.viewed")

    assert caught.value.__notes__ == [
        "in consumer bad, which handled page.viewed inline at attempt 1"
    ]
    assert len(seen.messages) == 1


@pytest.mark.django_db(transaction=True)
def test_an_error_is_raised_after_a_real_commit_too(use_site: UseSite) -> None:
    @consumer("page.viewed", name="bad")
    def handle(message: Message) -> None:
        raise Reject("no")

    use_site()
    with inline() as events, pytest.raises(Reject), transaction.atomic():
        Record.objects.create(patient_id=1)
        emit("page.viewed")

    assert Record.objects.count() == 1
    assert isinstance(events.handled[0].outcome, DeadLettered)


def fail() -> None:
    raise Undo


@pytest.mark.django_db(transaction=True)
def test_handlers_run_where_a_callback_of_the_commit_raises(use_site: UseSite) -> None:
    seen = listen("page.viewed")
    use_site()

    with inline(), pytest.raises(Undo), transaction.atomic():
        transaction.on_commit(fail)
        emit("page.viewed", 1)

    assert seen.data == [1]


@pytest.mark.django_db(transaction=True)
def test_their_errors_come_with_that_of_the_callback(use_site: UseSite) -> None:
    @consumer("page.viewed", name="bad")
    def handle(message: Message) -> None:
        raise Reject("no")

    use_site()
    with inline(), pytest.RaisesGroup(Undo, Reject), transaction.atomic():
        emit("page.viewed", 1)
        transaction.on_commit(fail)


@pytest.mark.parametrize(
    "commit",
    [
        pytest.param("commit", marks=pytest.mark.django_db(transaction=True)),
        pytest.param("savepoint_commit", marks=pytest.mark.django_db),
    ],
)
def test_what_a_failed_commit_took_back_is_not_handled(
    use_site: UseSite, commit: str
) -> None:
    seen = listen("page.viewed")
    use_site()
    failing = patch.object(connection, commit, side_effect=[DatabaseError, None])

    with (
        inline() as events,
        failing,
        pytest.raises(DatabaseError),
        transaction.atomic(),
    ):
        emit("page.viewed", 1)

    assert not seen.messages
    assert not events


def test_the_errors_of_several_handlers_come_as_a_group(use_site: UseSite) -> None:
    for name in ("one", "two"):

        @consumer("page.viewed", name=name)
        def handle(message: Message) -> None:
            raise Undo

    use_site()
    with inline(), pytest.RaisesGroup(Undo, Undo):
        emit("page.viewed")


def test_errors_are_only_noted_where_the_test_says_so(use_site: UseSite) -> None:
    @consumer("page.viewed", name="bad")
    def handle(message: Message) -> None:
        raise Undo

    use_site()
    with inline(raise_errors=False) as events:
        assert emit("page.viewed")

    assert isinstance(events.handled[0].outcome, DeadLettered)


def test_a_batch_handler_gets_lists_of_its_size(use_site: UseSite) -> None:
    sizes: list[int] = []

    @consumer("page.*", name="batches", batch=3)
    def handle(messages: list[Message]) -> None:
        sizes.append(len(messages))

    use_site()
    with inline():
        emit_many([("page.viewed", number) for number in range(5)])
        emit("page.viewed")

    assert sizes == [3, 2, 1]


def test_what_handlers_emit_is_handled_after_them(use_site: UseSite) -> None:
    order: list[str] = []

    @consumer("page.viewed", name="first")
    def first(message: Message) -> None:
        emit("page.read")
        order.append("first")

    @consumer("page.viewed", name="second")
    def second(message: Message) -> None:
        order.append("second")

    @consumer("page.read", name="third")
    def third(message: Message) -> None:
        order.append("third")

    use_site()
    with inline() as events:
        emit("page.viewed")

    assert order == ["first", "second", "third"]
    events.assert_emitted("page.read", count=1)


def test_events_that_breed_themselves_are_told(use_site: UseSite) -> None:
    @consumer("page.viewed", name="endless")
    def handle(message: Message) -> None:
        emit("page.viewed")

    use_site()
    with inline(), pytest.raises(AssertionError, match="emitting for 100 rounds: page"):
        emit("page.viewed")


def test_no_thread_starts_and_disabled_consumers_stay_so(use_site: UseSite) -> None:
    seen = listen("page.viewed", enabled=False)
    other = listen("page.left", name="other")
    use_site()
    threads = set(threading.enumerate())

    with inline():
        emit("page.viewed")

    assert set(threading.enumerate()) <= threads
    assert not get_broker().is_started
    assert not seen.messages
    assert not other.messages


def test_another_thread_handles_what_it_emits(use_site: UseSite) -> None:
    names: list[str] = []

    @consumer("page.viewed", name="names")
    def handle(message: Message) -> None:
        names.append(threading.current_thread().name)

    use_site()
    with inline():
        thread = threading.Thread(target=emit, args=("page.viewed",), name="mine")
        thread.start()
        thread.join()

    assert names == ["mine"]
