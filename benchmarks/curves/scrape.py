"""How large a scrape is, and how long it takes, as a site grows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from django.test import Client

from benchmarks.project import set_up
from benchmarks.sink import NS, now
from django_gomq import Message, get_broker

TEXT = "text/plain"
OPENMETRICS = "application/openmetrics-text"


def scrape(consumers: int) -> Callable[[], Mapping[str, float]]:
    """Read the metrics page of a site whose consumers have two event types each."""
    set_up()
    _load_site(max(consumers * 3 // 4, 1), consumers)
    client = Client()

    def read(accept: str) -> tuple[float, bytes]:
        began = now()
        body = client.get("/gomq/metrics", headers={"accept": accept}).content
        return (now() - began) * NS, body

    def run() -> Mapping[str, float]:
        seconds, body = read(TEXT)
        openmetrics, _ = read(OPENMETRICS)
        return {
            "series": body.count(b"\ngomq_"),
            "bytes": len(body),
            "text": seconds,
            "openmetrics": openmetrics,
        }

    return run


def _load_site(events: int, consumers: int) -> None:
    """Send a message through every consumer, so that no number is a cheap 0."""
    broker = get_broker()
    types = [f"bench.event_{number}" for number in range(events)]
    for number in range(consumers):
        pair = {types[number % events], types[(number * 7 + 1) % events]}
        broker.consume(sorted(pair), lambda message: None, name=f"bench.{number}")
    for event_type in types:
        broker.publish(Message(event_type))
    while not broker.stats().is_quiet:
        time.sleep(0.001)
