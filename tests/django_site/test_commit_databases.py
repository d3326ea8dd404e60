from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.db import connections, transaction

from django_gomq import ConfigurationError, Receipt, emit, emit_many, get_broker
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import Seen, Undo, listen, wait_quiet

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@pytest.fixture
def seen(live_site: UseSite) -> Seen:
    seen = listen("page.viewed")
    live_site()
    return seen


def roll_back(block: Callable[[], object], using: str = "default") -> None:
    with pytest.raises(Undo), transaction.atomic(using=using):
        block()
        raise Undo


def test_the_event_waits_for_the_one_database_with_an_open_transaction(
    seen: Seen,
) -> None:
    connections["default"].ensure_connection()

    with transaction.atomic(using="other"):
        receipt = emit("page.viewed", 1)
        state = receipt.state

    seen.wait_for(1)
    assert state == "pending"


@pytest.mark.parametrize("outer", ["default", "other"])
def test_of_several_open_transactions_the_event_waits_for_all(
    seen: Seen, outer: str
) -> None:
    inner = "other" if outer == "default" else "default"
    states: list[str] = []

    with transaction.atomic(using=outer):
        with transaction.atomic(using=inner):
            receipts = [emit("page.viewed", 1), *emit_many([("page.viewed", 2)])]
        states += [receipt.state for receipt in receipts]
        emit("page.viewed", 3)

    seen.wait_for(3)
    assert states == ["pending", "pending"]
    assert seen.data == [1, 2, 3]
    assert {receipt.state for receipt in receipts} == {"accepted"}


@pytest.mark.parametrize("undone", ["outer", "inner", "savepoint"])
def test_of_several_open_transactions_each_takes_the_event_back(
    seen: Seen, undone: str
) -> None:
    receipts: list[Receipt] = []

    def block(name: str, using: str, inside: Callable[[], object]) -> None:
        with suppress(Undo), transaction.atomic(using=using):
            inside()
            if name == undone:
                raise Undo

    def savepoint() -> None:
        emit("page.viewed", "before", using="other")
        block("savepoint", "other", lambda: receipts.append(emit("page.viewed", 1)))

    block(
        "outer",
        "default",
        lambda: block("inner", "other", savepoint),
    )

    wait_quiet()
    assert [receipt.reason for receipt in receipts] == ["rolled_back"]
    assert 1 not in seen.data
    queue = get_broker().stats().queues["page.viewed"]
    assert queue.rolled_back == (2 if undone == "inner" else 1)


@pytest.mark.parametrize(
    ("using", "states"),
    [("default", ["pending", "pending"]), ("other", ["pending", "accepted"])],
)
def test_a_setting_names_the_transaction_to_wait_for_where_several_are_open(
    live_site: UseSite, using: str, states: list[str]
) -> None:
    listen("page.viewed")
    live_site(EMIT_USING=using)

    with transaction.atomic():
        with transaction.atomic(using="other"):
            receipt = emit("page.viewed", 1)
            told: list[str] = [receipt.state]
        told.append(receipt.state)

    assert told == states
    assert receipt.state == "accepted"


def test_where_the_named_database_has_no_transaction_the_open_ones_count(
    live_site: UseSite,
) -> None:
    listen("page.viewed")
    live_site(EMIT_USING="default")

    with transaction.atomic(using="other"):
        receipt = emit("page.viewed", 1)
        state = receipt.state

    assert (state, receipt.state) == ("pending", "accepted")


def test_each_database_has_its_own_events(seen: Seen) -> None:
    with transaction.atomic(using="other"):
        emit("page.viewed", "other", using="other")
        roll_back(lambda: emit("page.viewed", "default", using="default"))

    seen.wait_for(1)
    wait_quiet()
    assert seen.data == ["other"]


def test_a_named_database_without_a_transaction_does_not_wait(seen: Seen) -> None:
    with transaction.atomic():
        receipt = emit("page.viewed", 1, using="other")

        assert receipt.state == "accepted"


@pytest.mark.parametrize("using", ["nope", 5])
def test_an_unknown_database_is_refused_with_the_known_ones(
    seen: Seen, using: Any
) -> None:
    with pytest.raises(ConfigurationError, match="'default', 'other'"):
        emit("page.viewed", 1, using=using)


@pytest.mark.parametrize("using", [None, "other"])
def test_where_autocommit_is_off_emit_says_that_it_cannot_see_a_commit(
    seen: Seen, using: str | None
) -> None:
    transaction.set_autocommit(False, using="other")
    try:
        with pytest.raises(ConfigurationError, match="Autocommit is off.*'other'"):
            emit("page.viewed", 1, using=using)
        now = emit("page.viewed", 2, on_commit=False)
        default = emit("page.viewed", 3, using="default")
    finally:
        transaction.set_autocommit(True, using="other")

    seen.wait_for(2)
    assert (now.state, default.state) == ("accepted", "accepted")


@pytest.mark.parametrize("using", [None, "other"])
def test_a_block_with_autocommit_off_is_refused_as_its_end_is_no_commit(
    seen: Seen, using: str | None
) -> None:
    transaction.set_autocommit(False, using="other")
    try:
        with transaction.atomic(using="other"):
            with pytest.raises(ConfigurationError, match="Autocommit is off.*'other'"):
                emit("page.viewed", 1, using=using)
            with (
                pytest.raises(ConfigurationError, match="Autocommit is off.*'other'"),
                transaction.atomic(),
            ):
                emit_many([("page.viewed", 2)], using=using)
            with transaction.atomic():
                default = emit("page.viewed", 3, using="default")
            now = emit("page.viewed", 4, on_commit=False)
    finally:
        transaction.rollback(using="other")
        transaction.set_autocommit(True, using="other")

    seen.wait_for(2)
    assert (now.state, default.state) == ("accepted", "accepted")


def test_a_thread_that_ran_an_event_loop_still_sees_its_transactions(
    seen: Seen,
) -> None:
    async def look() -> None:
        connections.all(initialized_only=True)

    def emit_in_atomic() -> None:
        asyncio.run(look())
        with transaction.atomic():
            states.append(emit("page.viewed", 1).state)
        connections.close_all()

    states: list[str] = []
    thread = threading.Thread(target=emit_in_atomic)
    thread.start()
    thread.join()

    seen.wait_for(1)
    assert states == ["pending"]
