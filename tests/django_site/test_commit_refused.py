"""What becomes of events that a broker refuses after the commit they waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction

from django_gomq import (
    NoConsumerError,
    PublishError,
    QueueFullError,
    Receipt,
    emit,
    emit_many,
)
from django_gomq.bus.broker import Broker
from tests.django_site.clinic.models import Record
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import Held, Undo, fill, hold

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@pytest.fixture
def use_full(live_site: UseSite) -> Callable[..., Held]:
    """Makes a site where the queue of page.viewed is full."""

    def use(**broker: Any) -> Held:
        held = hold("page.viewed")
        brokers = {"default": {"OPTIONS": {"capacity": 1}, **broker}}
        live_site(BROKERS=brokers, FLUSH_TIMEOUT=0)
        fill("page.viewed", held, 1)
        return held

    return use


@pytest.mark.parametrize(
    ("broker", "options"),
    [
        ({}, {"strict": True}),
        ({"ON_REFUSED": "raise"}, {}),
        ({"ON_REFUSED": "log"}, {"strict": True}),
    ],
)
def test_what_would_be_raised_comes_out_of_the_commit_which_stands(
    use_full: Callable[..., Held], broker: dict[str, Any], options: Any
) -> None:
    held = use_full(**broker)
    receipts: list[Receipt] = []

    with pytest.raises(QueueFullError) as caught, transaction.atomic():
        Record.objects.create(patient_id=1)
        receipts.append(emit("page.viewed", 1, **options))

    held.release.set()
    assert Record.objects.count() == 1
    assert (receipts[0].state, receipts[0].error) == ("refused", caught.value)
    assert caught.value.__notes__ == ["The transaction is committed."]


@pytest.mark.parametrize(
    ("broker", "options"),
    [({}, {}), ({"ON_REFUSED": "raise"}, {"strict": False})],
)
def test_else_the_receipt_tells_and_the_commit_does_not(
    use_full: Callable[..., Held], broker: dict[str, Any], options: Any
) -> None:
    held = use_full(**broker)

    with transaction.atomic():
        receipt = emit("page.viewed", 1, **options)

    held.release.set()
    assert receipt.reason == "queue_full"


def test_callbacks_of_others_run_before_a_refusal_is_raised(
    use_full: Callable[..., Held],
) -> None:
    held = use_full()
    ran: list[str] = []

    with pytest.raises(QueueFullError), transaction.atomic():
        transaction.on_commit(lambda: ran.append("before"))
        emit_many([("page.viewed", 1), ("page.read", 2)], strict=True)
        transaction.on_commit(lambda: ran.append("behind"))

    with transaction.atomic():
        transaction.on_commit(lambda: ran.append("next"))

    held.release.set()
    assert ran == ["before", "behind", "next"]


def test_a_rollback_leaves_nothing_to_be_raised(use_full: Callable[..., Held]) -> None:
    held = use_full()
    ran: list[str] = []

    with pytest.raises(Undo), transaction.atomic():
        emit("page.viewed", 1, strict=True)
        raise Undo
    with transaction.atomic():
        transaction.on_commit(lambda: ran.append("ran"))
        receipt = emit("page.viewed", 2)

    held.release.set()
    assert ran == ["ran"]
    assert receipt.reason == "queue_full"


def test_an_error_of_another_callback_is_the_one_that_is_raised(
    use_full: Callable[..., Held],
) -> None:
    held = use_full()

    def fail() -> None:
        raise Undo

    with pytest.raises(Undo), transaction.atomic():
        receipt = emit("page.viewed", 1, strict=True)
        transaction.on_commit(fail)

    held.release.set()
    assert receipt.reason == "queue_full"


def test_where_a_type_without_consumer_is_to_raise_the_commit_does(
    live_site: UseSite,
) -> None:
    live_site(NO_CONSUMER="raise")

    with pytest.raises(NoConsumerError), transaction.atomic():
        emit("page.nobody", 1)


def test_of_several_databases_the_last_commit_raises(
    use_full: Callable[..., Held],
) -> None:
    held = use_full()

    with pytest.raises(PublishError), transaction.atomic():
        with transaction.atomic(using="other"):
            Record.objects.using("other").create(patient_id=1)
            emit("page.viewed", 1, strict=True)
        Record.objects.create(patient_id=1)

    held.release.set()
    assert Record.objects.count() == Record.objects.using("other").count() == 1


@pytest.mark.parametrize("is_request", [True, False])
def test_a_servers_answer_is_waited_for_as_long_as_outside_of_a_transaction(
    live_site: UseSite, monkeypatch: pytest.MonkeyPatch, is_request: bool
) -> None:
    limits: list[float | None] = []

    def take(broker: Broker, message: object, timeout: float | None) -> None:
        limits.append(timeout)

    def take_many(
        broker: Broker, messages: Any, timeout: float | None, parents: Any = ()
    ) -> Any:
        limits.append(timeout)
        return [None] * len(messages)

    monkeypatch.setattr(Broker, "hand_over", take)
    monkeypatch.setattr(Broker, "hand_over_many", take_many)
    monkeypatch.setattr("django_gomq.outgoing.serves_requests", lambda: is_request)
    redis = "django_gomq.backends.redis.RedisBackend"
    options = {"url": "redis://127.0.0.1:1/0"}
    live_site(
        BROKERS={"default": {"BACKEND": redis, "OPTIONS": options, "RUN": "never"}}
    )

    with transaction.atomic():
        emit("page.viewed")
    with transaction.atomic():
        emit_many([("page.viewed", number) for number in range(3)])

    assert limits == [None, None]
