from __future__ import annotations

import asyncio
import importlib
import threading
from contextlib import suppress

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections, transaction
from django.db.models.signals import post_save

from django_gomq import (
    ConfigurationError,
    EncodeError,
    Message,
    Receipt,
    aemit,
    consumer,
    emit,
    emit_many,
    emit_model_events,
    get_broker,
)
from tests.django_site.clinic.models import Record
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import Held, Seen, Undo, fill, hold, listen, wait_quiet
from tests.django_site.waiting import SECONDS

ONE = {"default": {"OPTIONS": {"capacity": 1}}}


@pytest.fixture
def seen(live_site: UseSite) -> Seen:
    seen = listen("page.viewed")
    live_site()
    return seen


@pytest.fixture
def full(live_site: UseSite) -> Held:
    held = hold("page.viewed")
    live_site(BROKERS=ONE)
    fill("page.viewed", held, 1)
    return held


def test_emit_under_a_loop_raises_with_the_hint(seen: Seen) -> None:
    async def view() -> None:
        with pytest.raises(ConfigurationError, match="await aemit"):
            emit("page.viewed")
        with pytest.raises(ConfigurationError, match="await aemit"):
            emit_many([("page.viewed", 1)])

    asyncio.run(view())

    assert not get_broker().is_started


def test_emit_under_a_loop_may_publish_at_once(seen: Seen) -> None:
    async def view() -> list[Receipt]:
        one = emit("page.viewed", 1, on_commit=False)
        return [one, *emit_many([("page.viewed", 2)], on_commit=False)]

    receipts = asyncio.run(view())

    seen.wait_for(2)
    assert [one.state for one in receipts] == ["accepted", "accepted"]


def test_emit_under_a_loop_may_not_wait_for_room(seen: Seen) -> None:
    async def view() -> None:
        with pytest.raises(ConfigurationError, match="would block the event loop"):
            emit("page.viewed", on_commit=False, timeout=1)

    asyncio.run(view())


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sync code may query under a running loop, as Django's docs say of Jupyter."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")


@pytest.mark.usefixtures("notebook")
@pytest.mark.django_db(transaction=True)
def test_a_notebook_emits_with_emit_and_its_transactions_hold(seen: Seen) -> None:
    async def cell() -> list[str]:
        outside = emit("page.viewed", "outside", timeout=1.0)
        with transaction.atomic():
            Record.objects.create(patient_id=1)
            held = [emit("page.viewed", "in"), *emit_many([("page.viewed", "many")])]
            held.append(await aemit("page.viewed", "awaited"))
            states: list[str] = [receipt.state for receipt in held]
        with suppress(Undo), transaction.atomic():
            held = [emit("page.viewed", "undone"), await aemit("page.viewed", "too")]
            raise Undo
        states += [str(receipt.reason) for receipt in held]
        connections.close_all()
        return [outside.state, *states]

    states = asyncio.run(cell())

    wait_quiet()
    assert states == ["accepted", *["pending"] * 3, *["rolled_back"] * 2]
    assert seen.data == ["outside", "in", "many", "awaited"]


@pytest.mark.usefixtures("notebook", "own_receivers")
@pytest.mark.django_db(transaction=True)
def test_a_save_in_a_notebook_emits_its_event(seen: Seen) -> None:
    emit_model_events(Record, created="page.viewed", data=lambda one: one.note)

    async def cell() -> None:
        Record.objects.create(patient_id=1, note="saved")
        connections.close_all()

    asyncio.run(cell())

    seen.wait_for(1)
    assert seen.data == ["saved"]


def test_aemit_publishes_where_no_transaction_is_open(seen: Seen) -> None:
    receipt = asyncio.run(aemit("page.viewed", {"path": "/"}, key="7"))

    seen.wait_for(1)
    assert receipt.state == "accepted"
    assert seen.messages[0].key == "7"


def test_aemit_raises_for_bad_data_as_emit_does(seen: Seen) -> None:
    with pytest.raises(EncodeError):
        asyncio.run(aemit("page.viewed", object()))


def test_aemit_without_the_app_is_a_no_op(without_the_app: None) -> None:
    receipt = asyncio.run(aemit("page.viewed", timeout=1))

    assert receipt.reason == "not_installed"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("timeout", [None, 1.0])
def test_aemit_sees_the_transaction_of_the_thread_that_called_async_code(
    seen: Seen, timeout: float | None
) -> None:
    async def service() -> Receipt:
        return await aemit("page.viewed", 1, timeout=timeout)

    with transaction.atomic():
        receipt = async_to_sync(service)()
        state = receipt.state
        started = get_broker().is_started
        Record.objects.create(patient_id=1)

    seen.wait_for(1)
    assert (state, started) == ("pending", False)
    assert receipt.state == "accepted"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_rolled_back", [True, False])
def test_an_async_receiver_of_a_signal_emits_what_the_transaction_around_it_commits(
    seen: Seen, own_receivers: None, is_rolled_back: bool
) -> None:
    receipts: list[Receipt] = []
    hints: list[str] = []

    async def announce(instance: Record, **signal: object) -> None:
        receipts.append(await aemit("page.viewed", instance.patient_id))
        try:
            emit("page.viewed")
        except ConfigurationError as error:
            hints.append(str(error))

    post_save.connect(announce, sender=Record)

    with suppress(Undo), transaction.atomic():
        Record.objects.create(patient_id=7)
        state = receipts[0].state
        if is_rolled_back:
            raise Undo

    assert state == "pending"
    assert ["await aemit" in hint for hint in hints] == [True]
    if is_rolled_back:
        assert receipts[0].reason == "rolled_back"
        assert not get_broker().is_started
    else:
        seen.wait_for(1)
        assert seen.data == [7]


@pytest.mark.django_db(transaction=True)
def test_sync_code_with_a_transaction_may_emit_from_within_async_code(
    seen: Seen,
) -> None:
    states: list[str] = []

    def save() -> None:
        with transaction.atomic():
            states.append(emit("page.viewed", 1).state)

    async def view() -> None:
        await sync_to_async(save)()

    async_to_sync(view)()

    seen.wait_for(1)
    assert states == ["pending"]


def test_aemit_that_waits_for_room_does_not_hold_up_the_loop(full: Held) -> None:
    async def others() -> int:
        # Done only if both the loop and its thread for the database are free.
        turns = 0
        for _ in range(20):
            await asyncio.sleep(0)
            turns += await sync_to_async(lambda: 1)()
        full.release.set()
        return turns

    async def view() -> tuple[Receipt, int]:
        waiting = asyncio.create_task(aemit("page.viewed", 1, timeout=SECONDS))
        turns = await others()
        return await waiting, turns

    receipt, turns = asyncio.run(view())

    assert turns == 20
    assert receipt.state == "accepted"


def test_aemit_without_a_timeout_is_refused_at_once(full: Held) -> None:
    receipt = asyncio.run(aemit("page.viewed", 1))

    full.release.set()
    assert receipt.reason == "queue_full"


def test_an_async_handler_may_emit(live_site: UseSite) -> None:
    seen = listen("page.read")
    states: list[str] = []

    async def handle(message: Message[int]) -> None:
        states.append((await aemit("page.read", message.data)).state)

    consumer("page.viewed", name="asks")(handle)
    live_site()

    emit("page.viewed", 3)

    seen.wait_for(1)
    wait_quiet()
    assert seen.data == [3]
    assert states == ["accepted"]


def test_aemit_looks_at_the_transaction_on_one_thread_for_all(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[threading.Thread] = set()

    def note(*args: object) -> None:
        threads.add(threading.current_thread())

    module = importlib.import_module("django_gomq.emit")  # its name is a function's too
    monkeypatch.setattr(module, "find_transactions", note)

    async def view() -> threading.Thread:
        await asyncio.gather(*(aemit("page.viewed", n) for n in range(5)))
        return await sync_to_async(threading.current_thread)()

    own = asyncio.run(view())

    assert threads == {own}
