from __future__ import annotations

from django.utils.translation import gettext_lazy

from django_gomq import (
    emit,
)
from django_gomq.emit import not_installed
from tests.django_site.clinic.events import RecordSaved
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import listen


def test_an_untyped_event_reaches_its_consumer_as_plain_data(
    live_site: UseSite,
) -> None:
    seen = listen("page.viewed")
    live_site()

    receipt = emit("page.viewed", {"path": "/"})

    seen.wait_for(1)
    assert receipt
    assert receipt.state == "accepted"
    assert seen.data == [{"path": "/"}]


def test_a_typed_event_reaches_its_consumer_as_its_class(live_site: UseSite) -> None:
    seen = listen(RecordSaved)
    live_site()

    emit(RecordSaved(record_id=7, note="well"))

    seen.wait_for(1)
    assert seen.data == [RecordSaved(record_id=7, note="well")]


def test_key_priority_and_headers_travel_with_the_event(live_site: UseSite) -> None:
    seen = listen("page.viewed")
    live_site()

    receipt = emit("page.viewed", key="7", priority=9, headers={"tenant": "a"})

    seen.wait_for(1)
    message = seen.messages[0]
    assert (message.key, message.priority, message.headers) == ("7", 9, {"tenant": "a"})
    assert receipt.message.id == message.id


def test_a_delayed_event_is_handled_after_its_delay(live_site: UseSite) -> None:
    seen = listen("page.viewed")
    live_site()

    receipt = emit("page.viewed", delay=0.05)

    seen.wait_for(1)
    assert receipt.state == "accepted"
    assert seen.messages[0].delay == 0.05


def test_a_lazy_text_is_emitted_as_its_text(live_site: UseSite) -> None:
    seen = listen("page.viewed")
    live_site()

    emit("page.viewed", {"title": gettext_lazy("Welcome")})

    seen.wait_for(1)
    assert seen.data == [{"title": "Welcome"}]


def test_a_broker_can_be_named_at_the_call(live_site: UseSite) -> None:
    listen("page.viewed")
    seen = listen("page.*", name="both")
    site = live_site(
        BROKERS={"default": {}, "second": {}}, ROUTES={"page.read": "second"}
    )

    emit("page.viewed", broker="second")

    seen.wait_for(1)
    assert site.brokers["second"].stats().queues["page.viewed"].published == 1


def test_without_the_app_emit_is_a_counted_no_op(without_the_app: None) -> None:
    before = not_installed["emit"]
    receipts = [emit("page.viewed"), emit(RecordSaved(record_id=1))]

    assert not any(receipts)
    assert [one.reason for one in receipts] == ["not_installed"] * 2
    assert receipts[1].message.type == "clinic.record.saved"
    assert not_installed["emit"] == before + 2


def test_a_receipt_shows_its_state_and_never_the_data(live_site: UseSite) -> None:
    live_site()

    receipt = emit("page.viewed", {"secret": "s3cret"})

    shown = repr(receipt)
    assert "page.viewed" in shown
    assert "refused, reason='no_consumer'" in shown
    assert "s3cret" not in shown
