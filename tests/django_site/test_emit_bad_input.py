from __future__ import annotations

import asyncio
import enum
import math
from collections import deque
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import models
from django.http import HttpRequest
from django.utils.safestring import SafeString

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
from django_gomq.bus.dead_letters import DeadLetter
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


@pytest.mark.parametrize(
    "timeout", ["5", math.nan, math.inf, -1, True, timedelta(-1)], ids=repr
)
def test_a_timeout_that_is_no_number_of_seconds_is_refused(
    use_site: UseSite, timeout: Any
) -> None:
    use_site()

    with pytest.raises(ConfigurationError, match="timeout is .* not a number"):
        emit("page.viewed", timeout=timeout)
    with pytest.raises(ConfigurationError, match="timeout is .* not a number"):
        emit_many([], timeout=timeout)
    with pytest.raises(ConfigurationError, match="timeout is .* not a number"):
        asyncio.run(aemit("page.viewed", timeout=timeout))


@pytest.mark.parametrize("event", ["page.viewed", RecordSaved(record_id=1)], ids=str)
def test_options_say_how_long_by_timedeltas(live_site: UseSite, event: Any) -> None:
    seen: list[Any] = []
    consumer("page.viewed", RecordSaved, name="reads")(seen.append)
    live_site()

    emit(event, delay=timedelta(milliseconds=1), timeout=timedelta(seconds=1))

    wait_until(lambda: seen)
    assert seen[0].delay == 0.001


def test_a_delay_above_the_most_says_what_to_do(use_site: UseSite) -> None:
    use_site()

    with pytest.raises(MessageError) as caught:
        emit("page.viewed", delay=timedelta(days=1))

    assert str(caught.value) == (
        "page.viewed: a delay of 86400 s is too long for broker 'default', whose "
        "backend takes up to 300 s: route it to a broker on the database or on Redis, "
        "which take any, or raise max_delay in the OPTIONS of this one, if the event "
        "may be lost with the process."
    )


class Level(models.IntegerChoices):
    HIGH = 7


class Types(str, enum.Enum):  # noqa: UP042 - str() of it is no type
    VIEWED = "page.viewed"
    LEFT = "emit_input.closed"


@pytest.mark.parametrize(
    "key",
    ["Jos\u00e9\u00a0Garc\u00eda", "a\u200b", "\U0001f469\u200d\U0001f4bb", "a\nb"],
    ids=ascii,
)
def test_any_text_is_a_key(live_site: UseSite, key: str) -> None:
    seen: list[Message] = []
    consumer("page.viewed", name="reads", ordered_by_key=True)(seen.append)
    live_site()

    emit("page.viewed", key=SafeString(key))

    wait_until(lambda: seen)
    assert seen[0].key == key


class PageLeft(Event, type=Types.LEFT):
    pass


@pytest.mark.parametrize("event", [Types.VIEWED, Types.LEFT, PageLeft()], ids=repr)
def test_members_of_enums_are_types_and_priorities(
    live_site: UseSite, event: Any
) -> None:
    seen: list[Message] = []
    consumer(*Types, name="reads")(seen.append)
    live_site()

    emit(event, {} if event in list(Types) else None, priority=Level.HIGH)

    wait_until(lambda: seen)
    assert seen[0].type in ("page.viewed", "emit_input.closed")
    assert (type(seen[0].type), seen[0].priority) == (str, 7)


def test_a_message_of_a_member_of_an_enum_shows_its_value() -> None:
    assert repr(Message(Types.VIEWED)).startswith("<Message page.viewed ")


DATA = "Data are one dict, by position:"
OPTIONS = (
    "Options are key, priority, delay, headers, broker, using, on_commit, timeout, "
    "strict."
)


@pytest.mark.parametrize(
    ("event", "options", "advice"),
    [
        (
            "page.viewed",
            {"a": 1, "b": 2},
            f"no option a, b. {DATA} emit('page.viewed', {{'a': ..., 'b': ...}}).",
        ),
        (
            "page.viewed",
            {"data": {"path": "/"}, "key": "7"},
            f"no option data. {DATA} emit('page.viewed', {{...}}).",
        ),
        (
            RecordSaved(record_id=1),
            {"prority": 1},
            "no option prority. A typed event carries its data in its fields.",
        ),
    ],
    ids=["fields", "data", "typed"],
)
def test_an_unknown_option_says_how_data_are_passed(
    use_site: UseSite, event: Any, options: Any, advice: str
) -> None:
    use_site()

    for call in (emit, lambda *args, **more: asyncio.run(aemit(*args, **more))):
        with pytest.raises(TypeError) as caught:
            call(event, **options)
        assert str(caught.value) == f"There is {advice} {OPTIONS}"


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


@pytest.mark.parametrize(
    "events",
    ["page.viewed", b"x", RecordSaved(record_id=1), {"page.viewed": {}}, None, 7],
    ids=lambda events: type(events).__name__,
)
def test_what_is_no_list_of_events_is_refused(use_site: UseSite, events: Any) -> None:
    use_site()

    with pytest.raises(
        ConfigurationError, match=r"emit_many\(\) takes a list of events"
    ):
        emit_many(events)


@pytest.mark.parametrize("option", ["on_commit", "strict"])
@pytest.mark.parametrize("value", ["no", 0, print], ids=str)
def test_a_switch_is_true_or_false(use_site: UseSite, option: Any, value: Any) -> None:
    use_site()

    with pytest.raises(ConfigurationError, match=f"{option} is .*, not True, False or"):
        emit("page.viewed", **{option: value})


def test_a_broker_publishes_messages(use_site: UseSite) -> None:
    broker = use_site().brokers["default"]
    event: Any = RecordSaved(record_id=1)

    for publish in (broker.publish, lambda event: broker.publish_many([event])):
        with pytest.raises(ConfigurationError, match="RecordSaved is none: emit"):
            publish(event)


def test_an_unknown_broker_is_refused_with_the_known_ones(use_site: UseSite) -> None:
    use_site()

    with pytest.raises(ConfigurationError, match="'nope'.*there are 'default'"):
        emit("page.viewed", broker="nope")


def test_an_undecodable_body_is_dead_lettered_and_the_next_message_goes_on(
    live_site: UseSite,
) -> None:
    seen: list[RecordSaved] = []
    consumer(RecordSaved, name="reads")(lambda message: seen.append(message.data))
    broker = live_site().brokers["default"]

    for body in (b"\xff", b'{"record_id": "x"}', b'{"record_id": 3}'):
        broker.publish(Message("clinic.record.saved", body))

    letters: list[DeadLetter] = []

    def are_all_told() -> bool:
        letters[:] = broker.dead_letters()
        return bool(seen) and len(letters) == 2

    wait_until(are_all_told)
    assert seen == [RecordSaved(record_id=3)]
    assert [one.error.split(":")[0] for one in letters] == ["DecodeError"] * 2


def test_a_body_above_the_limit_is_refused_by_the_broker_too(
    live_site: UseSite,
) -> None:
    broker = live_site(MAX_BODY_BYTES=10).brokers["default"]

    with pytest.raises(MessageTooLargeError):
        broker.publish(Message("page.viewed", b"x" * 11))


@pytest.mark.parametrize("alias", ["", 0, False, [], {}, ["default"], "nope"])
def test_what_is_no_broker_is_refused(use_site: UseSite, alias: Any) -> None:
    use_site()

    with pytest.raises(ConfigurationError, match="There is no broker"):
        emit("page.viewed", {}, broker=alias)
