from __future__ import annotations

import enum
import math
import threading
from collections import UserDict, deque
from collections.abc import Callable
from datetime import date
from typing import Any
from unittest.mock import Mock
from uuid import UUID, uuid4

import pytest
from django.db import transaction
from django.utils.translation import gettext_lazy

from django_gomq import EncodeError, Event, NoConsumerError, emit, emit_many
from django_gomq.capturing import outside
from django_gomq.testing import (
    CapturedEvents,
    assert_emitted,
    assert_not_emitted,
    assert_nothing_emitted,
    capture,
    live,
)
from tests.django_site.clinic.events import RecordRead, RecordSaved, Untyped
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import listen


def test_data_is_typed_for_event_classes(gomq_events: CapturedEvents) -> None:
    emit(RecordSaved(record_id=7))
    emit("page.viewed", {"path": "/"})

    assert gomq_events[0].data == RecordSaved(record_id=7)
    assert gomq_events[1].data == {"path": "/"}
    assert [message.type for message in gomq_events[:1]] == ["clinic.record.saved"]


def test_to_iterate_over_events_asks_for_each_once(
    gomq_events: CapturedEvents,
) -> None:
    emit_many([("page.viewed", number) for number in range(20)])
    asked = Mock(return_value=False)
    for entry in gomq_events.entries:
        entry.is_open = asked

    assert [message.data for message in gomq_events] == list(range(20))
    assert [message.data for message in reversed(gomq_events)] == [*range(20)][::-1]
    assert asked.call_count == 40


def test_bad_data_is_refused_as_in_production(gomq_events: CapturedEvents) -> None:
    with pytest.raises(EncodeError):
        emit("page.viewed", object())

    assert len(gomq_events) == 0


def test_assert_emitted_finds_by_type_class_and_part_of_the_data() -> None:
    with capture() as events:
        emit(RecordSaved(record_id=7, note="a"))
        emit(RecordSaved(record_id=8, note="a"), key="k")
        emit("page.viewed", {"path": "/", "user": {"id": 1, "name": "Ada"}})

        found = assert_emitted(RecordSaved, data={"record_id": 8})
        assert_emitted("clinic.record.saved", count=2, data={"note": "a"})
        assert_emitted(RecordSaved, key="k", count=1)
        assert_emitted(RecordSaved, where=lambda data: data.record_id > 7, count=1)
        assert_emitted("page.viewed", data={"user": {"id": 1}})
        assert_emitted("clinic.*", count=2)
        assert_emitted("blog.read", count=0)
        assert_not_emitted("page.viewed", data={"user": {"id": 2}})
        assert_not_emitted(RecordSaved, where=lambda data: data.record_id > 8)
        assert_not_emitted(RecordSaved, key="j")

    assert [message.data.record_id for message in found] == [8]
    assert [one.type for one in events.of("page.viewed")] == ["page.viewed"]


def test_untyped_data_are_compared_as_json_has_them(
    gomq_events: CapturedEvents,
) -> None:
    day, number = date(2026, 1, 2), uuid4()
    emit("page.viewed", {"day": day, "id": number})

    assert_emitted("page.viewed", data={"day": day, "id": number}, count=1)
    assert_emitted("page.viewed", data={"day": "2026-01-02"}, count=1)


def test_data_may_be_compared_as_a_whole(gomq_events: CapturedEvents) -> None:
    emit(RecordSaved(record_id=7))
    emit("page.viewed", (1, [2, 3]))

    assert_emitted(RecordSaved, data=RecordSaved(record_id=7))
    assert_not_emitted(RecordSaved, data=RecordSaved(record_id=8))
    assert_emitted("page.viewed", data=(1, (2, 3)))


class Day(enum.Enum):
    NEW_YEAR = date(2026, 1, 1)


@pytest.mark.parametrize(
    "value",
    [
        deque([1, date(2026, 1, 1)]),
        range(3),
        Day.NEW_YEAR,
        {7: "a", 1.5: {2: "b"}},
        {Day.NEW_YEAR: 1, UUID(int=7): 2},
        UserDict({"a": deque([1])}),
        [UserDict(a=range(2))],
        {"a": 1}.keys(),
        gettext_lazy("a"),
        b"abc",
        None,
    ],
    ids=repr,
)
def test_what_emit_takes_is_found_by_itself(
    gomq_events: CapturedEvents, value: Any
) -> None:
    emit("page.viewed", {"value": value, "note": "a"})

    assert_emitted("page.viewed", data={"value": value})
    assert_emitted("page.viewed", data={"value": value, "note": "a"})


def test_a_part_is_found_by_a_key_that_is_no_text(gomq_events: CapturedEvents) -> None:
    emit("page.viewed", {"days": {date(2026, 1, 1): {7: "a", 8: "b"}}})

    assert_emitted("page.viewed", data={"days": {date(2026, 1, 1): {7: "a"}}})
    assert_not_emitted("page.viewed", data={"days": {date(2026, 1, 2): {}}})
    assert_not_emitted("page.viewed", data={"days": {date(2026, 1, 1): {7: "b"}}})
    assert_not_emitted("page.viewed", data={"days": {(1, 2): {}}})


def test_the_items_of_a_set_have_no_order(gomq_events: CapturedEvents) -> None:
    emit("page.viewed", {"tags": ["b", "a"]})

    assert_emitted("page.viewed", data={"tags": {"a", "b"}})
    assert_emitted("page.viewed", data={"tags": frozenset({"b", "a"})})
    assert_not_emitted("page.viewed", data={"tags": {"a", "c"}})


def test_what_json_has_not_is_not_found(gomq_events: CapturedEvents) -> None:
    emit("page.viewed", {"value": None})

    assert_not_emitted("page.viewed", data={"value": math.nan})
    assert_not_emitted("page.viewed", data={"value": object()})


class Planned(Event, type="kit.planned"):
    days: list[date]
    names: dict[int, str]


def test_a_typed_field_is_found_by_what_was_passed(gomq_events: CapturedEvents) -> None:
    days: Any = deque([date(2026, 1, 1)])
    planned = Planned(days=days, names={7: "a"})
    emit(planned)

    assert_emitted(Planned, data={"days": days, "names": {7: "a"}})
    assert_emitted(Planned, data=planned)
    assert_not_emitted(Planned, data={"days": deque([date(2026, 1, 2)])})
    assert_not_emitted(Planned, data={"days": ["2026-01-01"]})


PAGE = {"path": "/a", "user": {"id": 1}, "tags": [{"n": 1}, {"n": 2}]}


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"data": {"path": "/b"}}, "Nearest: path is '/a', not '/b'."),
        ({"data": {"paht": "/a"}}, "Nearest: paht is missing."),
        ({"data": {"user": {"id": 2}}}, "Nearest: user.id is 1, not 2."),
        ({"data": {"path": {"x": 1}}}, "Nearest: path.x is missing."),
        ({"data": {"path": object}}, "Nearest: path is '/a', not <class 'object'>."),
        ({"key": "8"}, "Nearest: key is '7', not '8'."),
        ({"where": lambda data: False}, "Nearest: where() does not hold."),
        (
            {"data": {"tags": ["a"]}},
            "Nearest: tags is [{'n': 1}, {'n': 2}], not ['a'].",
        ),
        ({"data": {"tags": [{}, {"n": 3}]}}, "Nearest: tags[1].n is 2, not 3."),
        ({"data": dict.fromkeys("abcdefg", 1)}, "e is missing; 2 more."),
        ({"data": "/a"}, "Nearest: the data is {'path': '/a', "),
        ({"count": 2}, "was emitted once, not 2 times."),
        ({"count": 0}, "was emitted once, not 0 times."),
    ],
)
def test_a_failure_says_what_differs(
    gomq_events: CapturedEvents, wanted: dict[str, Any], told: str
) -> None:
    emit("page.viewed", PAGE, key="7")

    with pytest.raises(AssertionError) as caught:
        gomq_events.assert_emitted("page.viewed", **wanted)

    assert told in str(caught.value)
    assert "'page.viewed'" in str(caught.value).splitlines()[0]


def test_the_nearest_event_is_shown_first(gomq_events: CapturedEvents) -> None:
    for number in range(100):
        emit("page.viewed", {"a": number, "b": number, "text": "x" * 1000})
    emit("page.viewed", {"a": 7, "b": 8, "text": ""})

    with pytest.raises(AssertionError) as caught:
        gomq_events.assert_emitted("page.viewed", data={"a": 7, "b": 8, "text": "y"})

    lines = str(caught.value).splitlines()
    assert lines[1:4] == [
        "Nearest: text is '', not 'y'.",
        "Emitted:",
        '  page.viewed {"a":7,"b":8,"text":""}',
    ]
    assert lines[-1] == "  and 91 more"
    assert len(str(caught.value)) < 2500


def test_a_misspelt_type_is_told_with_what_it_may_mean(
    gomq_events: CapturedEvents,
) -> None:
    emit("page.viewed", {"path": "/a"}, key="7")

    with pytest.raises(AssertionError) as caught:
        gomq_events.assert_emitted("page.veiwed")

    assert str(caught.value).splitlines() == [
        "'page.veiwed' was emitted 0 times, not at least once.",
        "No event of this type was emitted; did you mean page.viewed?",
        "Emitted:",
        '  page.viewed key=\'7\' {"path":"/a"}',
    ]


@pytest.mark.parametrize("ask", ["assert_emitted", "assert_not_emitted"])
def test_a_field_that_the_class_does_not_have_is_told_at_once(
    gomq_events: CapturedEvents, ask: str
) -> None:
    with pytest.raises(AssertionError, match="no field 'record_di'.*mean record_id"):
        getattr(gomq_events, ask)(RecordSaved, data={"record_di": 7})


@pytest.mark.parametrize("event", [RecordSaved(record_id=1), 7, None, Untyped])
def test_what_is_no_event_type_is_told(gomq_events: CapturedEvents, event: Any) -> None:
    with pytest.raises(TypeError, match="is no event type: give an Event class"):
        gomq_events.assert_emitted(event)


def test_data_are_never_bare_keywords(gomq_events: CapturedEvents) -> None:
    with pytest.raises(TypeError, match="record_id"):
        gomq_events.assert_emitted(RecordSaved, record_id=7)  # type: ignore[call-overload]


def test_assert_emitted_says_that_nothing_was(gomq_events: CapturedEvents) -> None:
    with pytest.raises(AssertionError, match="Nothing was emitted"):
        gomq_events.assert_emitted("page.viewed")


def test_what_should_not_be_emitted_is_shown(gomq_events: CapturedEvents) -> None:
    emit("page.viewed", 1)
    emit("page.viewed", 2)

    with pytest.raises(AssertionError, match="emitted 2 times, and should not"):
        assert_not_emitted("page.viewed")
    with pytest.raises(AssertionError, match=r"(?s)2 events emitted.*page.viewed 1"):
        assert_nothing_emitted()


def test_nothing_emitted_is_nothing(gomq_events: CapturedEvents) -> None:
    assert_nothing_emitted()
    assert_not_emitted("*")


@pytest.mark.parametrize(
    "ask", [assert_emitted, assert_not_emitted, lambda _: assert_nothing_emitted()]
)
def test_an_assertion_needs_a_capture(ask: Callable[[str], object]) -> None:
    with pytest.raises(AssertionError, match=r"no capture\(\) or inline\(\) block"):
        ask("page.viewed")


def test_a_capture_of_some_leaves_the_others_to_the_one_around() -> None:
    with capture() as outer:
        with capture(only=["clinic.*", "page.viewed"]) as inner:
            emit("page.viewed", 1)
            emit("page.left", 2)
            emit_many([("page.left", 3), ("clinic.visit.made", 4)])
        with capture(only=RecordSaved) as typed:
            emit(RecordSaved(record_id=5))

    assert [message.data for message in inner] == [1, 4]
    assert [message.data for message in outer] == [2, 3]
    assert len(typed) == 1


def test_a_capture_of_some_lets_live_publish_the_others(use_site: UseSite) -> None:
    seen = listen("*")
    use_site()

    with live() as bus:
        with capture(only=["billing.*"]) as events:
            emit("billing.paid", 1)
            emit_many([("billing.paid", 2), ("page.viewed", 3)])
        bus.drain(60)

    assert [message.data for message in events] == [1, 2]
    assert seen.data == [3]


@pytest.mark.parametrize("rule", ["warn", "ignore"])
@pytest.mark.django_db
def test_the_receipt_of_a_captured_event_says_that_nobody_consumes_it(
    use_site: UseSite, rule: str
) -> None:
    use_site(NO_CONSUMER=rule)

    with capture() as events:
        receipt = emit("page.viewed")
        with transaction.atomic():
            later = emit("page.viewed")
            within = later.state

    assert (receipt.state, receipt.reason) == ("refused", "no_consumer")
    assert within == "pending"
    assert (later.reason, later.state) == ("no_consumer", "refused")
    assert len(events) == 2


def test_a_captured_event_that_nobody_consumes_raises_where_the_setting_says(
    use_site: UseSite,
) -> None:
    use_site(NO_CONSUMER="raise")

    with capture() as events:
        with pytest.raises(NoConsumerError, match="page.viewed"):
            emit("page.viewed")
        assert not emit(RecordRead(record_id=1))  # its class says "ignore"

    assert [message.type for message in events] == ["clinic.record.read"]


def test_what_outlives_the_process_may_be_consumed_elsewhere(
    use_site: UseSite,
) -> None:
    use_site(
        BROKERS={
            "default": {"BACKEND": "tests.django_site.outbox.OutboxBackend"},
        },
        NO_CONSUMER="raise",
    )

    with capture():
        assert emit("page.viewed").state == "accepted"


def test_strict_raises_what_nobody_consumes(use_site: UseSite) -> None:
    use_site()

    with capture(), pytest.raises(NoConsumerError):
        emit("page.viewed", strict=True)


def test_the_innermost_capture_gets_the_events() -> None:
    with capture() as outer:
        emit("page.viewed", 1)
        with capture() as inner:
            emit("page.viewed", 2)
        emit("page.viewed", 3)

    assert [message.data for message in outer] == [1, 3]
    assert [message.data for message in inner] == [2]


def test_captured_events_can_be_forgotten(gomq_events: CapturedEvents) -> None:
    emit("page.viewed")

    gomq_events.clear()

    assert list(gomq_events) == []


def test_a_capture_sees_the_events_of_other_threads(
    gomq_events: CapturedEvents,
) -> None:
    thread = threading.Thread(target=emit, args=("page.viewed", 1))
    thread.start()
    thread.join()

    gomq_events.assert_emitted("page.viewed", count=1)


def test_what_nobody_captures_is_kept_no_longer_than_its_bound() -> None:
    for _ in range(1100):
        emit("page.viewed")

    assert len(outside.entries) == 1000
    outside.entries.clear()


@pytest.fixture
def outside_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    from django_gomq import capturing

    monkeypatch.setattr(capturing, "is_test_environment", lambda: False)


def test_capture_works_outside_of_tests_too(
    use_site: UseSite, outside_tests: None
) -> None:
    seen = listen("page.viewed")
    use_site()

    with capture() as events:
        emit("page.viewed", 1)
    emit("page.viewed", 2)

    seen.wait_for(1)
    assert [message.data for message in events] == [1]
    assert seen.data == [2]
