"""A name whose type has an Event class: that class checks the data at the emit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from django.db import transaction

from django_gomq import EncodeError, Event, NoConsumerError, aemit, emit, emit_many
from django_gomq.site import brokers
from django_gomq.testing import capture
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import listen
from tests.django_site.waiting import wait_until


class Shipped(Event, type="shop.named.shipped"):
    order: int
    note: str = ""


EMITS: dict[str, Callable[[Any], object]] = {
    "emit": lambda data: emit("shop.named.shipped", data),
    "options": lambda data: emit("shop.named.shipped", data, key="7", priority=6),
    "broker": lambda data: emit("shop.named.shipped", data, broker="default"),
    "many": lambda data: emit_many([("shop.named.shipped", data)]),
    "async": lambda data: asyncio.run(aemit("shop.named.shipped", data)),
}


@pytest.mark.parametrize("how", EMITS)
@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"order": "x"}, "shop.named.shipped: Expected `int`, got `str`"),
        ({}, "shop.named.shipped: Object missing required field `order`"),
        (None, "shop.named.shipped: Expected `object`, got `null`"),
        ({"order": 1, "note": None}, "Expected `str`, got `null`"),
    ],
)
def test_data_that_do_not_fit_the_class_are_refused_at_the_emit(
    use_site: UseSite, how: str, data: Any, text: str
) -> None:
    use_site()

    with capture() as captured, pytest.raises(EncodeError) as caught:
        EMITS[how](data)

    assert text in str(caught.value)
    assert caught.value.event == "shop.named.shipped"
    assert len(captured) == 0


@pytest.mark.parametrize("how", EMITS)
def test_data_that_fit_go_to_consumers_of_the_class_and_of_the_name(
    live_site: UseSite, how: str
) -> None:
    typed = listen(Shipped, name="typed")
    plain = listen("shop.named.shipped", name="plain")
    live_site()

    EMITS[how]({"order": 7})

    typed.wait_for(1)
    plain.wait_for(1)
    assert typed.data == [Shipped(order=7)]
    assert plain.data == [{"order": 7}]


def test_a_class_that_is_defined_later_checks_from_then_on(use_site: UseSite) -> None:
    use_site()

    with capture() as captured:
        emit("shop.named.later", {"order": "x"})

        class Later(Event, type="shop.named.later"):
            order: int

        with pytest.raises(EncodeError, match="Expected `int`, got `str`"):
            emit("shop.named.later", {"order": "x"})
        emit("shop.named.later", {"order": 1})

    assert [one.data["order"] for one in captured] == ["x", 1]
    assert Later.__event_type__ == "shop.named.later"


class Quiet(Event, type="shop.named.quiet", no_consumer="ignore"):
    pass


class Heard(Event, type="shop.named.heard", no_consumer="raise"):
    pass


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("event", [Quiet(), "shop.named.quiet"], ids=["class", "name"])
@pytest.mark.parametrize("how", ["now", "commit"])
def test_a_name_goes_unheard_where_its_class_may(
    live_site: UseSite, caplog: pytest.LogCaptureFixture, event: Event | str, how: str
) -> None:
    site = live_site(NO_CONSUMER="raise")
    data = {} if isinstance(event, str) else None

    with transaction.atomic() if how == "commit" else nullcontext():
        receipt = emit(event, data)

    assert receipt.reason == "no_consumer"
    wait_until(site.brokers["default"].hooks.flush, "the hooks")
    told = [each.getMessage() for each in caplog.records if each.name == "gomq.emit"]
    assert not [text for text in told if "shop.named.quiet" in text]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("broker", [None, "default"])
def test_a_name_raises_where_its_class_does(
    live_site: UseSite, broker: str | None
) -> None:
    live_site(NO_CONSUMER="ignore")

    with pytest.raises(NoConsumerError):
        emit("shop.named.heard", {}, broker=broker)
    with pytest.raises(NoConsumerError), transaction.atomic():
        emit("shop.named.heard", {}, broker=broker)


def test_in_a_test_a_name_is_as_its_class_says(use_site: UseSite) -> None:
    use_site(NO_CONSUMER="ignore")

    with capture(), pytest.raises(NoConsumerError):
        emit("shop.named.heard", {})


def test_before_there_is_a_site_a_class_may_be_defined(own_registry: None) -> None:
    brokers.set_up(None)

    class Early(Event, type="shop.named.early"):
        order: int

    assert Early(order=1).order == 1
