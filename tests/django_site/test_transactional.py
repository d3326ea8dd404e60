from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from django.db import transaction

from django_gomq import ConfigurationError, consumer, emit, emit_many, get_broker
from django_gomq.bus.errors import BackendUnavailableError, PublishUnknownError
from django_gomq.observability.metrics import render
from tests.django_site import outbox
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import Undo, listen, wait_quiet
from tests.django_site.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

BACKEND = "tests.django_site.outbox.OutboxBackend"
READS_NOTHING = {"default": {"BACKEND": BACKEND, "RUN": "never"}}


@pytest.fixture(autouse=True)
def _table() -> Iterator[None]:
    outbox.create_table()
    yield
    outbox.create_table()


def test_an_emit_writes_into_the_transaction_it_is_called_in(
    live_site: UseSite,
) -> None:
    live_site(BROKERS=READS_NOTHING)

    with transaction.atomic():
        receipt = emit("page.viewed", 1)
        inside = outbox.rows()
        waiting = receipt.state

    assert (inside, waiting) == (["page.viewed"], "pending")
    assert receipt.state == "accepted"
    assert outbox.rows() == ["page.viewed"]


def test_of_several_open_transactions_the_one_to_write_into_must_be_named(
    live_site: UseSite,
) -> None:
    live_site(BROKERS=READS_NOTHING)

    with transaction.atomic(), transaction.atomic(using="other"):
        with pytest.raises(ConfigurationError, match="'default'.*EMIT_USING") as caught:
            emit("page.viewed", 1)
        emit("page.left", 2, using="default")

    assert "'other'" in str(caught.value)
    assert outbox.rows() == ["page.left"]


def test_a_setting_names_the_transaction_that_is_written_into(
    live_site: UseSite,
) -> None:
    live_site(BROKERS=READS_NOTHING, EMIT_USING="default")

    with transaction.atomic(), transaction.atomic(using="other"):
        emit("page.viewed", 1)

    assert outbox.rows() == ["page.viewed"]


def test_what_is_rolled_back_never_existed(live_site: UseSite) -> None:
    live_site(BROKERS=READS_NOTHING)

    with pytest.raises(Undo), transaction.atomic():
        receipt = emit("page.viewed", 1)
        raise Undo

    assert outbox.rows() == []
    assert (receipt.state, receipt.reason, bool(receipt)) == (
        "refused",
        "rolled_back",
        False,
    )
    numbers = get_broker().stats().queues["page.viewed"]
    assert (numbers.rolled_back, numbers.published) == (1, 0)


def test_what_is_committed_is_accepted_though_a_callback_of_others_raises(
    live_site: UseSite,
) -> None:
    live_site(BROKERS=READS_NOTHING)

    def fail() -> None:
        raise Undo

    with pytest.raises(Undo), transaction.atomic():
        transaction.on_commit(fail)
        receipt = emit("page.viewed", 1)

    numbers = get_broker().stats().queues["page.viewed"]
    assert receipt.state == "accepted"
    assert (numbers.rolled_back, numbers.published) == (0, 1)


def test_a_savepoint_takes_its_rows_and_receipts_back(live_site: UseSite) -> None:
    live_site(BROKERS=READS_NOTHING)

    with transaction.atomic():
        kept = emit("page.viewed", 1)
        with pytest.raises(Undo), transaction.atomic():
            lost = emit("page.left", 2)
            raise Undo

    assert outbox.rows() == ["page.viewed"]
    assert (kept.state, lost.state) == ("accepted", "refused")


def test_many_are_written_in_their_order(live_site: UseSite) -> None:
    live_site(BROKERS=READS_NOTHING)

    with transaction.atomic():
        emit_many([("page.viewed", 1), ("page.left", 2), ("page.viewed", 3)])

    numbers = get_broker().stats().queues
    assert outbox.rows() == ["page.viewed", "page.left", "page.viewed"]
    assert [numbers[name].published for name in ("page.viewed", "page.left")] == [2, 1]


def test_a_transaction_of_another_database_is_refused_at_the_call(
    live_site: UseSite,
) -> None:
    live_site(BROKERS=READS_NOTHING)

    with (
        transaction.atomic(using="other"),
        pytest.raises(ConfigurationError, match="default"),
    ):
        emit("page.viewed", 1)

    assert outbox.rows() == []


def test_other_brokers_of_the_same_transaction_wait_for_its_commit(
    live_site: UseSite,
) -> None:
    seen = listen("memory.*")
    live_site(
        BROKERS={"default": {}, "outbox": {"BACKEND": BACKEND, "RUN": "never"}},
        ROUTES={"page.*": "outbox"},
    )

    with transaction.atomic():
        emit_many([("page.viewed", 1), ("memory.used", 2)])
        inside = outbox.rows(), seen.types

    seen.wait_for(1)
    assert inside == (["page.viewed"], [])
    assert seen.types == ["memory.used"]


def test_outside_a_transaction_an_emit_is_written_at_once(live_site: UseSite) -> None:
    live_site(BROKERS=READS_NOTHING)

    receipt = emit("page.viewed", 1)

    assert (receipt.state, outbox.rows()) == ("accepted", ["page.viewed"])


def test_async_handlers_settle_on_a_thread_where_the_orm_works(
    live_site: UseSite,
) -> None:
    handled: list[int] = []

    @consumer("page.viewed", name="pages")
    async def handle(message: object) -> None:
        handled.append(1)

    live_site(BROKERS={"default": {"BACKEND": BACKEND, "RUN": "here"}})
    for number in range(2):  # none outside of a transaction
        with transaction.atomic():
            emit("page.viewed", number)

    wait_until(lambda: len(handled) == 2, "both are handled")
    wait_quiet()
    wait_until(lambda: not outbox.rows(), "both are settled")
    assert get_broker().stats().consumers["pages"].succeeded == 2


def test_a_process_that_only_emits_in_transactions_shares_its_numbers(
    live_site: UseSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    live_site(BROKERS=READS_NOTHING)

    with transaction.atomic():
        emit("page.viewed", 1)

    wait_until(lambda: list(tmp_path.glob("counter_gomq-*.db")), "its numbers")


def test_what_outlives_the_process_raises_what_it_could_not_publish(
    live_site: UseSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, messages: Sequence[object], timeout: object) -> object:
        return [BackendUnavailableError("away")] * len(messages)

    monkeypatch.setattr(outbox.OutboxBackend, "publish_many", refuse)
    live_site(BROKERS=READS_NOTHING)

    with pytest.raises(BackendUnavailableError):
        emit("page.viewed", 1)
    assert not emit("page.viewed", 2, strict=False)


def test_a_publish_that_is_not_answered_is_neither_accepted_nor_refused(
    live_site: UseSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say_nothing(
        self: object, messages: Sequence[object], timeout: object
    ) -> object:
        return [PublishUnknownError("no answer in 5 s")] * len(messages)

    monkeypatch.setattr(outbox.OutboxBackend, "publish_many", say_nothing)
    live_site(BROKERS=READS_NOTHING, EVENTS=["page.viewed"])

    receipt = emit("page.viewed", 1, strict=False)

    numbers = get_broker().stats().queues["page.viewed"]
    assert (receipt.state, receipt.reason, bool(receipt)) == ("unknown",) * 2 + (False,)
    assert (numbers.published, dict(numbers.refused), numbers.unknown) == (0, {}, 1)
    page = render("")[0].decode()
    where = '{broker="default",event="page.viewed"'
    assert f"gomq_messages_unknown_total{where}}} 1.0" in page
    assert f'gomq_messages_refused_total{where},reason="unavailable"}} 0.0' in page
