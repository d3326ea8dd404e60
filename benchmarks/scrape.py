"""How large a scrape is, and how long it takes: 30 events and 40 consumers of two each.

python benchmarks/scrape.py [runs]
"""

from __future__ import annotations

import statistics
import sys
import time

from site_for_benchmarks import set_up

EVENTS = 30
CONSUMERS = 40
FORMATS = {"text": "text/plain", "OpenMetrics": "application/openmetrics-text"}


def main(runs: int) -> None:
    """Print series, bytes and the median time of a scrape, in milliseconds."""
    set_up()
    _load_site()
    from django_gomq.observability.metrics import render

    for name, accept in FORMATS.items():
        times = []
        for _ in range(runs):
            began = time.perf_counter()
            body, _ = render(accept)
            times.append((time.perf_counter() - began) * 1000)
        series = [
            line for line in body.decode().splitlines() if line.startswith("gomq_")
        ]
        print(
            f"{name:12} {len(series)} series, {len(body) / 1024:.0f} KiB, "
            f"{statistics.median(times):.1f} ms ({min(times):.1f}..{max(times):.1f})"
        )


def _load_site() -> None:
    """Send a message through every consumer, so that no number is a cheap 0."""
    from django_gomq import Message, get_broker

    broker = get_broker()
    types = [f"bench.event_{number}" for number in range(EVENTS)]
    for number in range(CONSUMERS):
        pair = [types[number % EVENTS], types[(number * 7 + 1) % EVENTS]]
        broker.consume(pair, lambda message: None, name=f"bench.consumer_{number}")
    for event_type in types:
        broker.publish(Message(event_type))
    while not broker.stats().is_quiet:
        time.sleep(0.001)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 21)
