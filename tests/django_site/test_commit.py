from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.db import connection, transaction

from django_gomq import ConfigurationError, Receipt, emit, get_broker
from tests.django_site.clinic.models import Record
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import Seen, Undo, fill, hold, listen, wait_quiet
from tests.django_site.waiting import SECONDS

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


def rolled_back() -> int:
    return get_broker().stats().queues["page.viewed"].rolled_back


def test_an_event_waits_for_the_commit(seen: Seen) -> None:
    with transaction.atomic():
        receipt = emit("page.viewed", 1)
        waiting = receipt.state, bool(receipt), get_broker().is_started

    seen.wait_for(1)
    assert waiting == ("pending", True, False)
    assert receipt.state == "accepted"


def test_a_handler_sees_the_committed_rows(live_site: UseSite) -> None:
    from django_gomq import consumer

    counts: list[int] = []
    consumer("page.viewed", name="counts")(
        lambda message: counts.append(Record.objects.count())
    )
    live_site()

    with transaction.atomic():
        emit("page.viewed")
        Record.objects.create(patient_id=7)

    wait_quiet()
    assert counts == [1]


def test_a_rollback_takes_the_event_back(seen: Seen) -> None:
    receipts: list[Receipt] = []

    roll_back(lambda: receipts.append(emit("page.viewed")))
    emit("page.viewed", "after")

    seen.wait_for(1)
    assert seen.data == ["after"]
    assert (receipts[0].state, receipts[0].reason) == ("refused", "rolled_back")
    assert rolled_back() == 1


def test_a_savepoint_takes_back_only_what_was_emitted_since(seen: Seen) -> None:
    with transaction.atomic():
        kept = emit("page.viewed", 1)
        lost: list[Receipt] = []
        roll_back(lambda: lost.append(emit("page.viewed", 2)))
        state = lost[0].state
        emit("page.viewed", 3)

    seen.wait_for(2)
    assert seen.data == [1, 3]
    assert state == "refused"
    assert kept.state == "accepted"
    assert rolled_back() == 1


def test_a_released_savepoint_goes_with_its_parent(seen: Seen) -> None:
    with transaction.atomic():

        def nested() -> None:
            with transaction.atomic():
                emit("page.viewed", 1)
            emit("page.viewed", 2)

        roll_back(nested)
        emit("page.viewed", 3)

    seen.wait_for(1)
    assert seen.data == [3]
    assert rolled_back() == 2


def test_a_block_without_a_savepoint_goes_with_the_next_that_has_one(
    seen: Seen,
) -> None:
    def unsaved() -> None:
        with pytest.raises(Undo), transaction.atomic(savepoint=False):
            emit("page.viewed", 1)
            raise Undo

    with transaction.atomic():
        roll_back(unsaved)
        emit("page.viewed", 2)

    seen.wait_for(1)
    assert seen.data == [2]


def test_set_rollback_takes_events_back(seen: Seen) -> None:
    with transaction.atomic():
        receipt = emit("page.viewed", 1)
        transaction.set_rollback(True)

    assert receipt.reason == "rolled_back"
    assert rolled_back() == 1


def test_a_connection_that_is_closed_inside_its_block_takes_events_back(
    seen: Seen,
) -> None:
    with pytest.raises(Undo), transaction.atomic():
        receipt = emit("page.viewed", 1)
        connection.close()
        raise Undo

    assert receipt.reason == "rolled_back"


def test_on_commit_false_publishes_at_once(seen: Seen) -> None:
    def now() -> None:
        emit("page.viewed", 1, on_commit=False)
        seen.wait_for(1)

    roll_back(now)

    assert seen.data == [1]
    assert rolled_back() == 0


def test_the_setting_can_be_to_publish_at_once(live_site: UseSite) -> None:
    seen = listen("page.viewed")
    live_site(EMIT_ON_COMMIT=False)

    with transaction.atomic():
        now = emit("page.viewed", 1)
        later = emit("page.viewed", 2, on_commit=True)
        states = now.state, later.state

    seen.wait_for(2)
    assert states == ("accepted", "pending")


def test_a_commit_waits_for_room(live_site: UseSite) -> None:
    held = hold("page.viewed")
    live_site(BROKERS={"default": {"OPTIONS": {"capacity": 1}}}, FLUSH_TIMEOUT=SECONDS)
    fill("page.viewed", held, 1)
    threading.Timer(0.05, held.release.set).start()

    with transaction.atomic():
        receipt = emit("page.viewed", 1)

    assert receipt.state == "accepted"
    held.wait_for(3)


@pytest.mark.parametrize("options", [{"delay": 20}, {"broker": "nope"}])
def test_what_can_never_work_is_told_at_the_call_and_not_at_the_commit(
    live_site: UseSite, options: dict[str, float]
) -> None:
    seen = listen("page.viewed")
    live_site(BROKERS={"default": {"OPTIONS": {"max_delay": 10}}})

    with transaction.atomic():
        emit("page.viewed", 1)
        with pytest.raises(Exception, match="too long|no broker"):
            emit("page.viewed", 2, **options)  # type: ignore[arg-type]
        emit("page.viewed", 3)

    seen.wait_for(2)
    assert seen.data == [1, 3]


def test_a_priority_that_would_break_an_order_is_told_at_the_call(
    live_site: UseSite,
) -> None:
    seen = listen("page.viewed", ordered_by_key=True)
    live_site()

    with transaction.atomic():
        with pytest.raises(ConfigurationError, match="ordered_by_key"):
            emit("page.viewed", 1, priority=9)
        emit("page.viewed", 2)

    seen.wait_for(1)
    assert seen.data == [2]


@pytest.mark.parametrize("rolls_back", [False, True])
def test_a_savepoint_made_by_hand_takes_back_what_was_emitted_since(
    seen: Seen, rolls_back: bool
) -> None:
    with transaction.atomic():
        emit("page.viewed", 1)
        with transaction.atomic():
            emit("page.viewed", 2)
            savepoint = str(connection.savepoint())
            emit("page.viewed", 3)
            with transaction.atomic():
                emit("page.viewed", 4)
            if rolls_back:
                connection.savepoint_rollback(savepoint)
            else:
                connection.savepoint_commit(savepoint)
            emit("page.viewed", 5)

    wait_quiet()
    assert seen.data == ([1, 2, 5] if rolls_back else [1, 2, 3, 4, 5])
    assert rolled_back() == (2 if rolls_back else 0)


def test_a_savepoint_that_django_did_not_number_takes_nothing_back(seen: Seen) -> None:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SAVEPOINT mine")
        emit("page.viewed", 1)
        connection.savepoint_rollback("mine")

    seen.wait_for(1)
    assert rolled_back() == 0
