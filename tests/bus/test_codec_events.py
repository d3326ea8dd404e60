from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import pytest

from django_gomq.bus.data.codec import JsonCodec, decode_as
from django_gomq.bus.errors import ConfigurationError, DecodeError, EncodeError
from django_gomq.bus.event import Event
from django_gomq.bus.message import Message


class Point(msgspec.Struct):
    x: float | None


class Saved(Event, type="bus_tests.codec.saved"):
    record_id: int
    share: float = 0.0
    note: str = ""
    at: datetime | None = None
    points: list[Point] = []  # noqa: RUF012 - msgspec copies it


class Bounded(Event, type="bus_tests.codec.bounded"):
    age: Annotated[int, msgspec.Meta(ge=0)]


def saved(body: bytes) -> Any:
    return decode_as(Saved)(Message(Saved.__event_type__, body))


def test_an_event_is_written_as_its_fields() -> None:
    event = Saved(record_id=1, at=datetime(2026, 1, 2, tzinfo=UTC))

    assert JsonCodec().encode_event(event) == (
        b'{"record_id":1,"share":0.0,"note":"","at":"2026-01-02T00:00:00Z","points":[]}'
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"record_id": "1"},
        {"record_id": None},
        {"record_id": 1.5},
        {"record_id": 1, "at": "yesterday"},
        {"record_id": 1, "points": [{"y": 1.0}]},
    ],
    ids=repr,
)
def test_fields_of_a_wrong_type_are_refused_at_the_emit(fields: dict[str, Any]) -> None:
    with pytest.raises(EncodeError, match="bus_tests.codec.saved: ") as caught:
        JsonCodec().encode_event(Saved(**fields))

    assert caught.value.event == "bus_tests.codec.saved"


def test_constraints_of_fields_are_checked_at_the_emit() -> None:
    with pytest.raises(EncodeError, match=">= 0"):
        JsonCodec().encode_event(Bounded(age=-1))


@pytest.mark.parametrize(
    "use", [decode_as, lambda cls: JsonCodec().encode_event(cls(values=[]))]
)
def test_a_class_that_json_cannot_carry_is_a_configuration_error(use: Any) -> None:
    class Undecided(Event, type="bus_tests.codec.undecided"):
        values: list[int] | set[int]

    with pytest.raises(
        ConfigurationError, match="Event class .*Undecided .*field .values.: Type un"
    ) as caught:
        use(Undecided)

    assert caught.value.event == "bus_tests.codec.undecided"


def test_a_body_is_decoded_as_its_event() -> None:
    event = saved(b'{"record_id":7,"points":[{"x":1}]}')

    assert event == Saved(record_id=7, points=[Point(1.0)])


def test_fields_that_a_reader_does_not_know_are_ignored() -> None:
    assert saved(b'{"record_id":7,"new":[1,{"a":2}]}') == Saved(record_id=7)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"{}",
        b'{"record_id":"7"}',
        b'{"record_id":7}x',
        b'{"record_id":7,"points":[{}]}',
        b'{"\xff":7}',
        b'{"record_id":7,"note":"\xff"}',
        b'{"record_id":7,"new":' + b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:30]),
)
def test_a_body_that_does_not_fit_is_a_decode_error(body: bytes) -> None:
    with pytest.raises(DecodeError, match="does not fit Saved: ") as caught:
        saved(body)

    assert caught.value.event == "bus_tests.codec.saved"
