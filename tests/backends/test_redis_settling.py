"""What many settlements of one call at Redis come to, each by itself."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from django_gomq.testing.conformance.site import (
    CONSUMER,
    EVENT,
    LONG,
    Site,
    wait_until,
)

STREAM = f"{{gomq}}:e:{EVENT}"
MANY = 50
"""More than a script looks for one by one."""


@pytest.mark.parametrize("lost", [(0,), (0, 7, 31, 49), range(1, 50), range(50)])
def test_of_many_settled_at_once_those_that_others_hold_stay_with_them(
    redis_site: Site, redis_client: Any, lost: Any
) -> None:
    process, came, may_end = redis_site.process(), threading.Event(), threading.Event()

    def handle(messages: Any) -> None:
        came.set()
        may_end.wait(LONG)

    process.consume(handle, batch=MANY, linger=LONG)
    process.send_many(range(MANY))
    assert came.wait(LONG)
    ids = [entry[0] for entry in redis_client.xrange(STREAM)]
    taken = [ids[number] for number in lost]
    redis_client.xclaim(STREAM, CONSUMER, "another", 0, taken, justid=True)
    may_end.set()

    process.wait_until_quiet()
    stats = process.stats()
    assert (stats.succeeded, stats.lost_leases) == (MANY - len(taken), len(taken))
    left = redis_client.xpending_range(STREAM, CONSUMER, "-", "+", 2 * MANY)
    assert [each["message_id"] for each in left] == taken


def test_many_are_settled_in_whichever_order_they_ended(
    redis_site: Site, redis_client: Any
) -> None:
    process = redis_site.process()
    process.consume(lambda messages: None, batch=MANY, linger=LONG)
    process.calls.before = lambda name, given: name == "settle" and given[0].reverse()

    process.send_many(range(MANY))

    wait_until(lambda: process.stats().succeeded == MANY)
    assert process.stats().lost_leases == 0
    assert redis_client.xpending(STREAM, CONSUMER)["pending"] == 0
