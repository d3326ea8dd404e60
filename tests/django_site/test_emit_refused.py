from __future__ import annotations

import threading
import time

import pytest

from django_gomq import (
    BrokerClosedError,
    Message,
    NotRunningError,
    PublishTimeoutError,
    QueueFullError,
    Receipt,
    consumer,
    emit,
    get_broker,
)
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import Held, fill, hold, listen, wait_quiet
from tests.django_site.waiting import SECONDS, wait_until

ONE = {"default": {"OPTIONS": {"capacity": 1}}}


@pytest.fixture
def full(live_site: UseSite) -> Held:
    """A site where the queue of ``page.viewed`` has no room."""
    held = hold("page.viewed")
    live_site(BROKERS=ONE)
    fill("page.viewed", held, 1)
    return held


def test_a_full_queue_refuses_counts_and_logs(
    full: Held, caplog: pytest.LogCaptureFixture
) -> None:
    receipt = emit("page.viewed")

    full.release.set()
    assert not receipt
    assert (receipt.state, receipt.reason) == ("refused", "queue_full")
    assert isinstance(receipt.error, QueueFullError)
    assert get_broker().stats().queues["page.viewed"].refused == {"queue_full": 1}
    wait_until(get_broker().hooks.flush, "the hooks")
    assert [one.name for one in caplog.records].count("gomq.publish") == 1


def test_a_strict_emit_raises_the_refusal(full: Held) -> None:
    with pytest.raises(QueueFullError) as caught:
        emit("page.viewed", strict=True)

    full.release.set()
    assert (caught.value.event, caught.value.broker) == ("page.viewed", "default")


def test_emit_gives_up_after_its_timeout(full: Held) -> None:
    receipt = emit("page.viewed", timeout=0.01)

    full.release.set()
    assert receipt.reason == "timeout"
    assert isinstance(receipt.error, PublishTimeoutError)


def test_emit_waits_for_room_up_to_its_timeout(full: Held) -> None:
    threading.Timer(0.05, full.release.set).start()

    receipt = emit("page.viewed", timeout=SECONDS)

    assert receipt
    full.wait_for(3)


@pytest.mark.parametrize("strict", [None, True])
def test_a_broker_can_raise_refusals_by_its_setting(
    live_site: UseSite, strict: bool | None
) -> None:
    site = live_site(BROKERS={"default": {"ON_REFUSED": "raise", "RUN": "never"}})

    with pytest.raises(NotRunningError):
        emit("page.viewed", strict=strict)

    assert not site.brokers["default"].is_started


def test_a_call_that_is_not_strict_overrules_the_broker(live_site: UseSite) -> None:
    live_site(BROKERS={"default": {"ON_REFUSED": "raise", "RUN": "never"}})

    receipt = emit("page.viewed", strict=False)

    assert receipt.reason == "not_running"


def test_where_consumers_may_not_run_emit_is_refused_with_the_way_out(
    live_site: UseSite,
) -> None:
    listen("page.viewed")
    site = live_site(BROKERS={"default": {"RUN": "never"}})

    receipt = emit("page.viewed")

    assert receipt.reason == "not_running"
    assert "Set RUN to 'here', or GOMQ_RUN=here for this command" in str(receipt.error)
    assert site.brokers["default"].stats().queues["page.viewed"].refused == {
        "not_running": 1
    }


def test_a_closed_broker_refuses(live_site: UseSite) -> None:
    listen("page.viewed")
    site = live_site()
    emit("page.viewed")
    site.brokers["default"].close()

    receipt = emit("page.viewed", timeout=5)

    assert receipt.reason == "closed"
    assert isinstance(receipt.error, BrokerClosedError)


def test_a_handler_that_feeds_its_own_full_queue_is_refused_and_never_deadlocks(
    live_site: UseSite,
) -> None:
    receipts: list[Receipt] = []
    began: list[float] = []

    def feed(message: Message[int]) -> None:
        if message.data == 0:
            wait_until(lambda: not get_broker().stats().queues["page.viewed"].depth)
            began.append(time.monotonic())
            receipts.extend(emit("page.viewed", 1, timeout=600) for _ in range(20))
            began.append(time.monotonic())

    consumer("page.viewed", name="feeds", capacity=1, overflow="backpressure")(feed)
    live_site(BROKERS=ONE)

    emit("page.viewed", 0)

    wait_until(lambda: len(began) == 2)
    wait_quiet()
    assert receipts[0]
    assert {one.reason for one in receipts if not one} == {"queue_full"}
