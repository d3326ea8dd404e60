"""How rows of deliveries open: what consumers of one event share, and what not."""

from __future__ import annotations

from typing import Any

import pytest

from django_gomq.backends.database.rows import (
    Row,
    among,
    lease_of,
    leases_of,
    open_rows,
)
from django_gomq.bus.backend import REPLAYED
from django_gomq.bus.consumer import make_consumer
from django_gomq.bus.message import Message
from django_gomq.bus.wire import WireMessage, encode_structured

ENVELOPE = encode_structured(Message("order.paid", b"1"), source="//shop")
INBOX: Any = None  # nothing is wrong with any


def opened(row: Row, read: dict[int, WireMessage]) -> Message[Any]:
    consumer = make_consumer(["order.paid"], print, name="shop.mail", options={})
    (delivery,) = open_rows(consumer, [row], INBOX, read).deliveries
    return delivery.message


def test_consumers_of_one_event_share_its_message() -> None:
    read: dict[int, WireMessage] = {}

    first = opened(Row(1, 1, 100, ENVELOPE, 0.0), read)

    assert opened(Row(1, 2, 100, ENVELOPE, 0.0), read) is first
    assert opened(Row(2, 2, 100, ENVELOPE, 0.0), read) is not first


def test_a_replayed_delivery_alone_says_so() -> None:
    read: dict[int, WireMessage] = {}

    replayed = opened(Row(1, 1, 100, ENVELOPE, 0.0, replayed=True), read)
    other = opened(Row(1, 2, 100, ENVELOPE, 0.0), read)
    again = opened(Row(1, 3, 100, ENVELOPE, 0.0, replayed=True), read)

    assert [REPLAYED in each.headers for each in (replayed, other, again)] == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("numbers", "condition"),
    [
        ([7], "BETWEEN 7 AND 7"),
        ([3, 1, 2], "BETWEEN 1 AND 3"),
        ([1, 3], "IN (1, 3)"),
        ([-1, 0, 2], "IN (-1, 0, 2)"),
    ],
)
def test_a_range_stands_for_its_numbers_and_for_no_other(
    numbers: list[int], condition: str
) -> None:
    assert among(numbers) == condition


@pytest.mark.parametrize("claim", [0, 1, 2**24 - 1, 2**24, 2**24 + 7, 2**40])
def test_a_lease_is_one_of_its_process_however_many_it_has_claimed(claim: int) -> None:
    assert lease_of(7, claim) in range(*leases_of(7))
