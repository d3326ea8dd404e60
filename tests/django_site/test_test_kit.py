from __future__ import annotations

import threading

import pytest

from django_gomq import EncodeError, emit, get_broker
from django_gomq.testing import CapturedEvents, assert_emitted, capture, live
from django_gomq.testing import capture as capture_module
from tests.django_site.clinic.events import RecordSaved
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import listen


def test_data_is_typed_for_event_classes(gomq_events: CapturedEvents) -> None:
    emit(RecordSaved(record_id=7))
    emit("page.viewed", {"path": "/"})

    assert gomq_events[0].data == RecordSaved(record_id=7)
    assert gomq_events[1].data == {"path": "/"}
    assert [message.type for message in gomq_events[:1]] == ["clinic.record.saved"]


def test_bad_data_is_refused_as_in_production(gomq_events: CapturedEvents) -> None:
    with pytest.raises(EncodeError):
        emit("page.viewed", object())

    assert len(gomq_events) == 0


def test_assert_emitted_finds_by_type_class_and_values() -> None:
    with capture() as events:
        emit(RecordSaved(record_id=7, note="a"))
        emit(RecordSaved(record_id=8, note="a"))
        emit("page.viewed", {"path": "/", "user": None})

        found = assert_emitted(RecordSaved, record_id=8)
        assert_emitted("clinic.record.saved", times=2, note="a")
        assert_emitted("page.viewed", path="/", user=None)
        assert_emitted("page.viewed", times=0, missing=None)
        assert_emitted("blog.read", times=0)

    assert [message.data.record_id for message in found] == [8]
    assert [one.type for one in events.of("page.viewed")] == ["page.viewed"]


def test_assert_emitted_says_what_was_emitted_instead(
    gomq_events: CapturedEvents,
) -> None:
    emit("page.viewed", {"path": "/a"})

    with pytest.raises(AssertionError) as caught:
        gomq_events.assert_emitted("page.viewed", path="/b")

    assert str(caught.value) == (
        "'page.viewed' with {'path': '/b'} was emitted 0 times, not at least once. "
        'Emitted: page.viewed {"path":"/a"}.'
    )


@pytest.mark.parametrize("times", [0, 2])
def test_assert_emitted_counts(gomq_events: CapturedEvents, times: int) -> None:
    emit("page.viewed")

    with pytest.raises(AssertionError, match=f"1 times, not {times} times"):
        gomq_events.assert_emitted("page.viewed", times=times)


def test_assert_emitted_says_that_nothing_was(gomq_events: CapturedEvents) -> None:
    with pytest.raises(AssertionError, match="Emitted: nothing"):
        gomq_events.assert_emitted("page.viewed")


def test_assert_emitted_needs_a_capture() -> None:
    with pytest.raises(AssertionError, match=r"needs a capture\(\) block"):
        assert_emitted("page.viewed")


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

    gomq_events.assert_emitted("page.viewed", times=1)


def test_what_nobody_captures_is_kept_no_longer_than_its_bound() -> None:
    import sys

    kept = sys.modules[capture_module.__module__]._outside

    for _ in range(1100):
        emit("page.viewed")

    assert len(kept) == 1000
    kept.clear()


def test_a_live_block_inside_another_ends_nothing(use_site: UseSite) -> None:
    seen = listen("page.viewed")
    use_site()

    with live():
        with live():
            emit("page.viewed", 1)
        emit("page.viewed", 2)
        seen.wait_for(2)

    assert seen.data == [1, 2]


def test_live_publishes_for_real_and_ends_what_it_started(use_site: UseSite) -> None:
    seen = listen("page.viewed")
    use_site()

    with live():
        emit("page.viewed", 1)
        broker = get_broker()
        seen.wait_for(1)

    assert broker.is_closed
    assert not get_broker().is_started
    assert emit("page.viewed", 2)
    assert seen.data == [1]


@pytest.fixture
def outside_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    from django_gomq.testing import modes

    monkeypatch.setattr(modes, "is_test_environment", lambda: False)


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
