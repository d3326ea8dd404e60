"""A test that stops the clock, as projects do with freezegun."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any, Final

import freezegun
import pytest
from django.utils import timezone

from django_gomq import EncodeError, Event, Message, Retry, consumer, emit, get_broker
from django_gomq.bus.event import EventMeta
from django_gomq.models import StoredDeadLetter
from django_gomq.testing import CapturedEvents, live
from tests.django_site.burying import BROKERS
from tests.django_site.conftest import UseSite
from tests.django_site.waiting import SECONDS, wait_until


@pytest.mark.parametrize("options", [{}, {"tick": True}], ids=["stopped", "ticking"])
def test_the_bus_of_a_live_test_goes_on(
    use_site: UseSite, options: dict[str, Any]
) -> None:
    attempts: list[int] = []

    @consumer("page.viewed", name="c", retry=Retry(attempts=2, min_delay=0.01))
    def fail_once(message: Message[Any]) -> None:
        attempts.append(message.attempt)
        if message.attempt == 1:
            raise ValueError

    use_site()
    with freezegun.freeze_time("2030-01-01", **options), live() as bus:
        emit("page.viewed", delay=0.01)
        bus.drain(timeout=SECONDS)

    assert attempts == [1, 2]


@pytest.mark.django_db(transaction=True)
def test_an_event_of_a_database_reaches_its_handler(use_site: UseSite) -> None:
    handled: list[Any] = []

    @consumer("page.viewed", name="c")
    def handle(message: Message[Any]) -> None:
        handled.append(message.data)

    use_site(BROKERS=BROKERS)
    with freezegun.freeze_time("2030-01-01"), live() as bus:
        get_broker().setup()
        emit("page.viewed", {"n": 1})
        bus.drain(timeout=SECONDS)

    assert handled == [{"n": 1}]


@pytest.mark.django_db(transaction=True)
def test_a_dead_letter_of_memory_is_in_the_table(use_site: UseSite) -> None:
    @consumer("page.viewed", name="c")
    def fail(message: Message[Any]) -> None:
        raise ValueError

    use_site()
    # It ticks, as wait_until goes by it.
    with freezegun.freeze_time("2030-01-01", tick=True), live() as bus:
        emit("page.viewed", {"n": 1})
        bus.drain(timeout=SECONDS)
        # Before the clock is the real one again: then it could be written in any case.
        wait_until(StoredDeadLetter.objects.exists, "the dead letter")


NOON: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
TODAY: Final = date(2030, 1, 1)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        pytest.param(datetime, NOON, id="datetime"),
        pytest.param("datetime", NOON, id="text"),
        pytest.param("datetime | None", NOON, id="optional"),
        pytest.param(date, TODAY, id="date"),
        pytest.param("list[date]", [TODAY], id="list"),
        pytest.param("dict[date, int]", {TODAY: 1}, id="keys"),
    ],
)
def test_the_first_event_of_a_class_may_be_emitted(
    gomq_events: CapturedEvents, own_event_classes: None, annotation: Any, value: Any
) -> None:
    namespace = {"__annotations__": {"at": annotation}, "__module__": __name__}
    moved: Any = EventMeta("Moved", (Event,), namespace, type="clock.moved")

    with freezegun.freeze_time(NOON):
        emit(moved(at=value))
    emit(moved(at=value))
    with pytest.raises(EncodeError, match=r"^clock.moved: "):
        emit(moved(at="yesterday"))

    assert [message.data.at for message in gomq_events] == [value, value]


def test_what_was_emitted_is_found_by_the_same_moment(
    gomq_events: CapturedEvents,
) -> None:
    with freezegun.freeze_time(NOON):
        data = {"at": timezone.now(), "day": timezone.now().date()}
        emit("page.viewed", data)

        gomq_events.assert_emitted("page.viewed", data=data)
