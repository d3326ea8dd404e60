from __future__ import annotations

import pytest

from django_gomq import emit
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import listen

BOTH: dict[str, dict[str, str]] = {"default": {}, "second": {}}


@pytest.mark.parametrize(
    ("event", "alias"),
    [
        ("page.viewed", "default"),
        ("billing.invoice.paid", "second"),
        ("billing.invoice.draft.saved", "default"),
        ("billing.invoice.draft.urgent", "second"),
        ("billing", "default"),
    ],
)
def test_the_most_specific_route_wins(
    use_site: UseSite, event: str, alias: str
) -> None:
    site = use_site(
        BROKERS=BOTH,
        ROUTES={
            "billing.*": "second",
            "billing.invoice.draft.*": "default",
            "billing.invoice.draft.urgent": "second",
        },
    )

    assert site.route(event) == alias


def test_a_route_for_everything_leaves_nothing_to_the_default(
    use_site: UseSite,
) -> None:
    listen("page.*", "blog.read", name="reads")

    site = use_site(BROKERS=BOTH, ROUTES={"*": "second"})

    assert site.route("page.viewed") == "second"
    assert site.brokers["default"].consumers == []
    assert [one.name for one in site.brokers["second"].consumers] == ["reads"]


def test_a_pattern_subscribes_on_every_broker_its_types_route_to(
    live_site: UseSite,
) -> None:
    seen = listen("billing.*", name="all")
    site = live_site(BROKERS=BOTH, ROUTES={"billing.invoice.*": "second"})

    emit("billing.invoice.paid", "second")
    emit("billing.account.opened", "default")

    seen.wait_for(2)
    assert sorted(seen.data) == ["default", "second"]
    subscribed = [
        [one.name for one in broker.consumers] for broker in site.brokers.values()
    ]
    assert subscribed == [["all"], ["all"]]


def test_a_consumer_is_only_where_its_types_are(use_site: UseSite) -> None:
    listen("page.viewed", name="pages")
    listen("billing.invoice.paid", "billing.account.opened", name="billing")
    listen("billing.invoice.*", name="invoices")

    site = use_site(BROKERS=BOTH, ROUTES={"billing.*": "second"})

    names = {
        alias: [one.name for one in broker.consumers]
        for alias, broker in site.brokers.items()
    }
    assert names == {"default": ["pages"], "second": ["billing", "invoices"]}


def test_one_worker_serves_all_brokers(live_site: UseSite) -> None:
    first = listen("page.viewed", name="first")
    second = listen("billing.paid", name="second")
    site = live_site(BROKERS=BOTH, ROUTES={"billing.*": "second"}, THREADS=3)

    emit("page.viewed")
    emit("billing.paid")

    first.wait_for(1)
    second.wait_for(1)
    assert site.worker is not None
    assert site.worker.alive == 3


def test_a_disabled_consumer_gets_nothing(live_site: UseSite) -> None:
    listen("page.viewed", enabled=False)
    live_site()

    assert emit("page.viewed").reason == "no_consumer"


def test_a_consumer_can_be_disabled_at_deploy_time(live_site: UseSite) -> None:
    listen("page.viewed")
    live_site(CONSUMERS={"seen": {"enabled": False}})

    assert emit("page.viewed").reason == "no_consumer"


def test_declared_events_have_numbers_before_the_first_emit(
    use_site: UseSite,
) -> None:
    listen("page.viewed")
    site = use_site(
        BROKERS=BOTH, ROUTES={"billing.*": "second"}, EVENTS=["billing.paid"]
    )

    first = site.brokers["default"].stats().queues
    second = site.brokers["second"].stats().queues

    assert {"page.viewed", "clinic.record.saved"} <= set(first)
    assert set(second) == {"billing.paid"}
