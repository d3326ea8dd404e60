from __future__ import annotations

import gc
from typing import Any

import msgspec
import pytest

from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.event import (
    Event,
    EventMeta,
    definitions,
    event_classes,
    version_of,
)
from tests.bus.waiting import wait_until


class Saved(Event, type="bus_tests.record.saved", version=3, no_consumer="ignore"):
    record_id: int


class Plain(Event, type="bus_tests.plain"):
    name: str = ""


class Base(Event):
    record_id: int


class Derived(Base, type="bus_tests.derived"):
    note: str


class Corrected(Derived):
    pass


def test_a_class_knows_its_type_and_version() -> None:
    assert Saved.__event_type__ == "bus_tests.record.saved"
    assert Saved.__event_version__ == 3
    assert Saved.__no_consumer__ == "ignore"


def test_the_first_version_needs_no_number() -> None:
    assert (Plain.__event_version__, Plain.__no_consumer__) == (1, None)


def test_an_event_cannot_be_changed() -> None:
    event = Saved(record_id=1)

    with pytest.raises(AttributeError):
        event.record_id = 2  # type: ignore[misc]


def test_the_fields_of_an_event_are_named() -> None:
    with pytest.raises(TypeError):
        Saved(1)  # type: ignore[call-arg]


def test_events_with_equal_fields_are_equal() -> None:
    assert Saved(record_id=1) == Saved(record_id=1)
    assert Saved(record_id=1) != Saved(record_id=2)


def test_an_event_has_the_fields_of_its_base() -> None:
    event = Derived(record_id=1, note="x")

    assert msgspec.to_builtins(event) == {"record_id": 1, "note": "x"}


def test_a_class_without_a_type_is_a_base_for_others() -> None:
    assert Base.__event_type__ == ""
    assert Base not in event_classes()


def test_a_type_is_not_inherited() -> None:
    assert Corrected.__event_type__ == ""


def test_classes_that_name_a_type_are_found_by_type() -> None:
    ours = [cls for cls in event_classes() if cls in {Saved, Plain, Derived, Base}]

    assert ours == [Derived, Plain, Saved]


def test_a_definition_is_told_to_who_asked_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    monkeypatch.setattr(definitions, "on_defined", told.append)

    class Told(Event, type="bus_tests.told"):
        pass

    class Untold(Event):
        pass

    monkeypatch.setattr(definitions, "on_defined", None)

    class Later(Event, type="bus_tests.later"):
        pass

    assert told == ["bus_tests.told"]
    assert (Untold.__event_type__, Later.__event_type__) == ("", "bus_tests.later")
    assert Told.__event_type__ == "bus_tests.told"


def test_a_class_that_is_gone_is_not_found() -> None:
    def names() -> list[str]:
        return [cls.__event_type__ for cls in event_classes()]

    class Short(Event, type="bus_tests.short"):
        pass

    assert "bus_tests.short" in names()
    del Short
    # It does nothing while another thread collects.
    wait_until(lambda: gc.collect() >= 0 and "bus_tests.short" not in names())


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"typ": "a.b"}, "unknown keyword 'typ'; there are type, version, no_consumer"),
        ({"type": "Order Paid"}, "type: 'Order Paid' is not an event type: write"),
        ({"type": "a.*"}, r"type: 'a.\*' is not an event type"),
        ({"type": 7}, "type: 7 is not an event type"),
        ({"type": None}, "type: None is not an event type"),
        ({"type": "a.b", "version": "2"}, "version is '2', not a whole number from 1"),
        ({"type": "a.b", "version": 1.0}, "version is 1.0, not a whole number"),
        ({"type": "a.b", "version": True}, "version is True, not a whole number"),
        ({"type": "a.b", "version": 0}, "version is 0, not a whole number"),
        ({"type": "a.b", "no_consumer": "log"}, "no_consumer is 'log', not one of"),
        ({"type": "a.b", "frozen": False}, "events are frozen and keyword-only"),
        ({"type": "a.b", "kw_only": False}, "events are frozen and keyword-only"),
    ],
    ids=str,
)
def test_a_wrong_keyword_is_told_where_the_class_is_defined(
    keywords: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"Event class Wrong: {text}"):

        class Wrong(Event, **keywords):
            pass


def test_the_version_of_a_type_is_that_of_its_latest_class() -> None:
    for version in (1, 3):
        EventMeta("Versioned", (Event,), {}, type="event.versioned", version=version)

    assert version_of("event.versioned") == 3
    assert version_of("event.without.a.class") is None
