from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from django_gomq import ConfigurationError, Message, Reject, Retry, consumer
from django_gomq.site import Site, brokers
from django_gomq.testing import (
    Ack,
    DeadLettered,
    RetryAfter,
    assert_listening,
    call,
)
from tests.django_site.clinic.consumers import audit, count
from tests.django_site.clinic.events import RecordRead, RecordSaved
from tests.django_site.clinic.models import Record
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import Undo, listen

DATABASE = "django_gomq.backends.database.DatabaseBackend"
SAVED = RecordSaved(record_id=7)


def test_a_handler_gets_typed_data_and_its_outcome_is_returned(
    use_site: UseSite,
) -> None:
    seen = listen(RecordSaved)
    use_site()

    outcome = call(seen, SAVED, attempt=2, key="k", headers={"a": "b"})

    (message,) = seen.messages
    assert outcome == Ack()
    assert message.data == SAVED
    assert (message.attempt, message.key, message.headers) == (2, "k", {"a": "b"})


def test_an_untyped_event_is_told_by_its_type_and_data(use_site: UseSite) -> None:
    seen = listen("page.*")
    use_site()

    assert call(seen, "page.viewed", {"at": (1, 2)}) == Ack()
    assert seen.data == [{"at": [1, 2]}]


@pytest.mark.parametrize("attempt", [1, 2])
def test_the_outcome_says_what_the_bus_would_do(
    use_site: UseSite, attempt: int
) -> None:
    @consumer("page.viewed", name="fails", retry=Retry(attempts=2, jitter=False))
    def handle(message: Message) -> None:
        raise Undo

    use_site()
    outcome = call(handle, "page.viewed", attempt=attempt)

    assert isinstance(outcome, [RetryAfter, DeadLettered][attempt - 1])
    assert isinstance(outcome.error, Undo)


def test_a_handler_is_named_in_each_way_that_a_user_has(use_site: UseSite) -> None:
    @consumer("page.viewed", name="of.class")
    class Handler:
        def handle(self, message: Message) -> None:
            if message.data:
                raise Reject("no")

    use_site()
    (registered,) = brokers["default"].consumers
    handle: Any = registered.handler
    instance = handle.__self__

    for handler in (Handler, instance, instance.handle, "of.class"):
        assert isinstance(call(handler, "page.viewed", 1), DeadLettered)


def test_an_async_handler_runs_to_its_end(use_site: UseSite) -> None:
    seen: list[Any] = []

    @consumer("page.viewed", name="one", timeout=60)
    async def handle(message: Message) -> None:
        seen.append(message.data)

    use_site()

    assert call(handle, "page.viewed", 1) == Ack()
    assert seen == [1]


def test_a_call_on_the_event_loop_says_what_to_write(use_site: UseSite) -> None:
    @consumer("page.viewed", name="one")
    async def handle(message: Message) -> None: ...

    async def call_on_the_loop() -> None:
        with pytest.raises(ConfigurationError, match="sync_to_async"):
            call(handle, "page.viewed")
        assert await sync_to_async(call)(handle, "page.viewed") == Ack()

    use_site()
    asyncio.run(call_on_the_loop())


def test_a_batch_handler_gets_a_list(use_site: UseSite) -> None:
    sizes: list[int] = []

    @consumer(RecordSaved, "page.viewed", name="batch", batch=10)
    def handle(messages: list[Message]) -> None:
        sizes.append(len(messages))
        if any(message.data == "bad" for message in messages):
            raise Undo

    use_site()

    assert call(handle, SAVED) == Ack()
    outcomes = call(handle, [SAVED, ("page.viewed", "bad"), ("page.viewed", 1)])
    assert [type(one) for one in outcomes] == [Ack, DeadLettered, Ack]
    assert sizes == [1, 3, 1, 1, 1]


def test_a_plain_handler_gets_a_list_one_by_one(use_site: UseSite) -> None:
    seen = listen("page.viewed")
    use_site()

    assert call(seen, [("page.viewed", 1), ("page.viewed", 2)]) == [Ack(), Ack()]
    assert seen.data == [1, 2]


def test_the_context_is_fresh(use_site: UseSite) -> None:
    user = contextvars.ContextVar("user", default="nobody")
    found: list[str] = []

    @consumer("page.viewed", name="one")
    def handle(message: Message) -> None:
        found.append(user.get())

    use_site()
    user.set("Ada")
    call(handle, "page.viewed")

    assert found == ["nobody"]


@pytest.mark.django_db
def test_an_atomic_handler_is_rolled_back_as_on_the_bus(use_site: UseSite) -> None:
    @consumer("page.viewed", name="one", atomic=True)
    def handle(message: Message) -> None:
        Record.objects.create(patient_id=1)
        raise Undo

    use_site()

    assert isinstance(call(handle, "page.viewed"), DeadLettered)
    assert not Record.objects.exists()


@pytest.mark.django_db
def test_an_idempotent_handler_is_rolled_back_and_called_each_time(
    use_site: UseSite,
) -> None:
    @consumer("page.viewed", name="one")
    def handle(message: Message) -> None:
        Record.objects.create(patient_id=1)
        if message.attempt == 1:
            raise Undo

    use_site(
        BROKERS={"default": {"BACKEND": DATABASE}},
        CONSUMERS={"one": {"idempotent": True}},
    )

    assert isinstance(call(handle, "page.viewed"), DeadLettered)
    assert not Record.objects.exists()
    for _ in range(2):
        assert isinstance(call(handle, "page.viewed", attempt=2), Ack)
    assert Record.objects.count() == 2


def test_an_event_that_never_reaches_the_handler_is_told() -> None:
    with pytest.raises(AssertionError) as caught:
        call(count, RecordRead(record_id=1))

    assert str(caught.value) == (
        "clinic.record.read never reaches clinic.statistics, which listens to "
        "clinic.record.saved."
    )


def test_what_is_no_handler_is_told() -> None:
    with pytest.raises(AssertionError, match="no consumer of 'Undo'; there are cl"):
        call(Undo, SAVED)
    with pytest.raises(AssertionError, match="no consumer of 'clinic.statistic';"):
        call("clinic.statistic", SAVED)


def test_a_handler_of_two_consumers_has_to_be_named(use_site: UseSite) -> None:
    def handle(message: Message) -> None: ...

    consumer("page.viewed", name="one")(handle)
    consumer("page.*", name="two")(handle)
    consumer("page.left", name="three")(handle)
    use_site()

    assert call(handle, "page.read") == Ack()
    assert call("two", "page.viewed") == Ack()
    with pytest.raises(AssertionError, match="handler of one, two: give one"):
        call(handle, "page.viewed")


def test_consumers_of_one_broker_alone_are_found(use_site: UseSite) -> None:
    site: Site = use_site()
    site.brokers["default"].consume("page.viewed", audit, name="added")

    assert call("added", "page.viewed") == Ack()
    assert_listening("page.viewed", "added")


def test_who_listens_can_be_asserted(use_site: UseSite) -> None:
    seen = listen(RecordSaved, "page.*")
    use_site()

    assert_listening(RecordSaved, "seen")
    assert_listening("page.viewed", "seen")
    assert_listening("page.viewed", seen)


@pytest.mark.parametrize(
    ("event", "name", "told"),
    [
        ("page.viewed", "off", "goes to seen; off listens to page.viewed, but is not"),
        (
            RecordRead,
            "seen",
            "'clinic.record.read' goes to nobody; seen listens to page",
        ),
    ],
)
def test_who_does_not_listen_is_told(
    use_site: UseSite, event: Any, name: str, told: str
) -> None:
    listen("page.*", name="seen")
    listen("page.viewed", name="off", enabled=False)
    use_site()

    with pytest.raises(AssertionError) as caught:
        assert_listening(event, name)

    assert told in str(caught.value)


def test_without_a_site_the_kit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "site", None)

    with pytest.raises(ConfigurationError, match="INSTALLED_APPS"):
        call(count, SAVED)


@pytest.mark.parametrize("attempt", [0, -1, "1", None, True, 1.0])
def test_what_is_no_attempt_is_refused(use_site: UseSite, attempt: Any) -> None:
    use_site()

    with pytest.raises(ConfigurationError, match="attempt is"):
        call(count, SAVED, attempt=attempt)


def test_what_is_no_pair_of_a_batch_is_refused(use_site: UseSite) -> None:
    use_site()

    with pytest.raises(ConfigurationError, match="is no pair of a type and data"):
        call(audit, [("health.record.saved", 1, 2)])
