from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from django.db import transaction

from django_gomq import Broker, EncodeError, Message, QueueFullError, emit_many
from django_gomq.capturing import Watcher, captures
from tests.django_site.clinic.events import RecordSaved
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import fill, hold, listen


def test_events_of_both_kinds_arrive_in_their_order(live_site: UseSite) -> None:
    seen = listen("clinic.*")
    live_site()

    receipts = emit_many(
        [("clinic.visit.made", number) for number in range(3)], key="7", priority=6
    )

    seen.wait_for(3)
    assert seen.data == [0, 1, 2]
    assert {(one.key, one.priority) for one in seen.messages} == {("7", 6)}
    assert [one.state for one in receipts] == ["accepted"] * 3


def test_all_are_checked_before_the_first_is_published(live_site: UseSite) -> None:
    listen("clinic.*")
    site = live_site()

    with pytest.raises(EncodeError):
        emit_many([RecordSaved(record_id=1), ("clinic.visit.made", object())])

    assert site.brokers["default"].stats().is_quiet
    assert not site.brokers["default"].is_started


@pytest.mark.django_db(transaction=True)
def test_a_batch_waits_for_the_commit(live_site: UseSite) -> None:
    seen = listen("clinic.*")
    live_site()

    with transaction.atomic():
        receipts = emit_many([RecordSaved(record_id=1), ("clinic.visit.made", 2)])
        states = [one.state for one in receipts]

    seen.wait_for(2)
    assert states == ["pending", "pending"]
    assert [one.state for one in receipts] == ["accepted", "accepted"]


@pytest.mark.django_db(transaction=True)
def test_a_batch_may_refuse_to_wait(live_site: UseSite) -> None:
    listen("clinic.*")
    live_site()

    with transaction.atomic():
        receipts = emit_many([("clinic.visit.made", 2)], on_commit=False)

        assert [one.state for one in receipts] == ["accepted"]


def test_events_go_to_the_brokers_that_their_types_route_to(
    live_site: UseSite,
) -> None:
    seen = listen("clinic.*")
    site = live_site(
        BROKERS={"default": {}, "visits": {}}, ROUTES={"clinic.visit.*": "visits"}
    )

    emit_many([RecordSaved(record_id=1), ("clinic.visit.made", 2)])

    seen.wait_for(2)
    published = {
        alias: sum(one.published for one in broker.stats().queues.values())
        for alias, broker in site.brokers.items()
    }
    assert published == {"default": 1, "visits": 1}


def test_a_strict_batch_raises_the_first_refusal_after_all_were_tried(
    live_site: UseSite,
) -> None:
    held = hold("clinic.visit.made")
    seen = listen("clinic.record.saved")
    live_site(BROKERS={"default": {"OPTIONS": {"capacity": 1}}})
    fill("clinic.visit.made", held, 1)

    with pytest.raises(QueueFullError):
        emit_many([("clinic.visit.made", 1), RecordSaved(record_id=1)], strict=True)

    held.release.set()
    seen.wait_for(1)


def test_what_does_not_fit_is_refused_and_the_rest_taken(live_site: UseSite) -> None:
    held = hold("clinic.visit.made")
    live_site(BROKERS={"default": {"OPTIONS": {"capacity": 2}}})
    fill("clinic.visit.made", held, 1)

    receipts = emit_many([("clinic.visit.made", number) for number in range(3)])

    held.release.set()
    assert [bool(one) for one in receipts] == [True, False, False]
    assert [one.reason for one in receipts] == [None, "queue_full", "queue_full"]
    assert isinstance(receipts[2].error, QueueFullError)


def test_the_timeout_is_for_all_brokers_together(
    live_site: UseSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def note(
        broker: Broker,
        messages: Sequence[Message[int]],
        timeout: float,
        parents: object,
    ) -> list[None]:
        waits.append(timeout)
        return [None] * len(messages)

    live_site(
        BROKERS={"default": {}, "visits": {}}, ROUTES={"clinic.visit.*": "visits"}
    )
    monkeypatch.setattr(Broker, "hand_over_many", note)

    emit_many([RecordSaved(record_id=1), ("clinic.visit.made", 2)], timeout=5)

    assert 5 >= waits[0] > waits[1]


def test_without_the_app_each_event_goes_nowhere(without_the_app: None) -> None:
    receipts = emit_many([RecordSaved(record_id=1), ("clinic.visit.made", 2)])

    assert [one.reason for one in receipts] == ["not_installed"] * 2


@pytest.mark.parametrize("wrong", [("a.b",), ("a.b", 1, 2), 7, ["a.b", 1]])
def test_what_is_no_event_and_no_pair_is_refused_with_the_form(
    use_site: UseSite, wrong: Any
) -> None:
    from django_gomq import ConfigurationError

    use_site()

    with pytest.raises(ConfigurationError):
        emit_many([wrong])


def test_an_empty_batch_does_nothing_where_somebody_watches(
    live_site: UseSite,
) -> None:
    live_site()
    captures.append(watcher := Watcher())
    try:
        assert emit_many([]) == []
    finally:
        captures.remove(watcher)


def test_an_empty_batch_does_nothing(live_site: UseSite) -> None:
    site = live_site()

    assert emit_many([]) == []

    assert not site.brokers["default"].is_started
