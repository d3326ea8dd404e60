from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest

from django_gomq import (
    ConfigurationError,
    EncodeError,
    Event,
    Message,
    MessageError,
    MessageTooLargeError,
    aemit,
    consumer,
    emit,
    emit_many,
)
from tests.django_site.clinic.events import RecordSaved, Untyped
from tests.django_site.conftest import UseSite
from tests.django_site.waiting import wait_until


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        (math.nan, "leave the field out"),
        ({"rate": [math.inf]}, "leave the field out"),
        (User(pk=7), "emit its pk"),
        (User.objects.none(), "values_list"),
        (HttpRequest(), "what the handler needs"),
        (object(), "pass numbers, texts"),
        (deque([object()]), "has no JSON form"),
    ],
)
def test_data_that_json_cannot_carry_is_refused_with_advice(
    use_site: UseSite, data: object, advice: str
) -> None:
    use_site()

    with pytest.raises(EncodeError, match=advice) as caught:
        emit("page.viewed", data)

    assert caught.value.event == "page.viewed"


def test_a_field_of_the_wrong_type_is_refused_at_the_call(use_site: UseSite) -> None:
    use_site()
    wrong: Any = "seven"

    with pytest.raises(EncodeError, match=r"clinic\.record\.saved.*record_id"):
        emit(RecordSaved(record_id=wrong))


def test_a_body_above_the_limit_is_refused_with_advice(use_site: UseSite) -> None:
    use_site(MAX_BODY_BYTES=100)

    with pytest.raises(MessageTooLargeError, match="emit an id"):
        emit("page.viewed", "x" * 99)


@pytest.mark.parametrize(
    "options",
    [
        {"key": ""},
        {"key": "k" * 201},
        {"key": "a\nb"},
        {"key": 7},
        {"priority": 10},
        {"priority": -1},
        {"delay": -1},
        {"delay": math.nan},
        {"headers": {"a b": "c"}},
        {"headers": {"a": "c\x1b"}},
        {"headers": {"a": 1}},
        {"headers": "a=b"},
        {"headers": 7},
        {"delay": "soon"},
        {"priority": None},
        {"headers": {str(number): "" for number in range(33)}},
        {"headers": {"a": "x" * 5000}},
    ],
)
def test_an_option_outside_its_limits_is_a_message_error(
    use_site: UseSite, options: Any
) -> None:
    use_site()

    with pytest.raises(MessageError):
        emit("page.viewed", **options)


@pytest.mark.parametrize("timeout", ["5", math.nan, math.inf])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(
    use_site: UseSite, timeout: Any
) -> None:
    use_site()

    with pytest.raises(ConfigurationError, match="timeout is .* not seconds"):
        emit("page.viewed", timeout=timeout)
    with pytest.raises(ConfigurationError, match="timeout is .* not seconds"):
        emit_many([], timeout=timeout)
    with pytest.raises(ConfigurationError, match="timeout is .* not seconds"):
        asyncio.run(aemit("page.viewed", timeout=timeout))


@pytest.mark.parametrize("name", ["", "Page", "page viewed", "page..x", "a" * 201])
def test_a_text_that_is_no_event_type_is_refused(use_site: UseSite, name: str) -> None:
    use_site()

    with pytest.raises(ConfigurationError, match="is not an event type"):
        emit(name)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        ((RecordSaved,), "make an event of it"),
        ((RecordSaved(record_id=1), {"a": 1}), "carries its data in its fields"),
        ((Untyped(record_id=1),), "names no event type"),
        ((7,), "is not an event type"),
    ],
)
def test_a_call_that_can_never_work_says_what_to_write(
    use_site: UseSite, call: Any, complaint: str
) -> None:
    use_site()

    with pytest.raises(ConfigurationError, match=complaint):
        emit(*call)


def test_an_unknown_broker_is_refused_with_the_known_ones(use_site: UseSite) -> None:
    use_site()

    with pytest.raises(ConfigurationError, match="'nope'.*there are 'default'"):
        emit("page.viewed", broker="nope")


def test_an_event_class_with_a_name_that_is_no_event_type_is_refused(
    use_site: UseSite,
) -> None:
    class BadlyNamed(Event, type="Clinic Record!"):
        pass

    use_site()

    with pytest.raises(ConfigurationError, match="'Clinic Record!' is not an event"):
        emit(BadlyNamed())


def test_an_undecodable_body_is_dead_lettered_and_the_next_message_goes_on(
    live_site: UseSite,
) -> None:
    seen: list[RecordSaved] = []
    consumer(RecordSaved, name="reads")(lambda message: seen.append(message.data))
    broker = live_site().brokers["default"]

    for body in (b"\xff", b'{"record_id": "x"}', b'{"record_id": 3}'):
        broker.publish(Message("clinic.record.saved", body))

    wait_until(lambda: seen and len(broker.dead_letters()) == 2)
    assert seen == [RecordSaved(record_id=3)]
    assert [one.error.split(":")[0] for one in broker.dead_letters()] == [
        "DecodeError",
        "DecodeError",
    ]


def test_a_body_above_the_limit_is_refused_by_the_broker_too(
    live_site: UseSite,
) -> None:
    broker = live_site(MAX_BODY_BYTES=10).brokers["default"]

    with pytest.raises(MessageTooLargeError):
        broker.publish(Message("page.viewed", b"x" * 11))
