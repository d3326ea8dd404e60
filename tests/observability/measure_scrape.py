"""Says what a scrape costs: ``python -m tests.observability.measure_scrape``.

No test, as the time of a shared machine proves nothing; the budget is 20 ms and 2,500
series for 30 events and 40 consumers of two types each.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.broker import Broker
from django_gomq.observability.metrics import install, render

from .golden import series_of
from .live import do_nothing, publish, wait_quiet

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def milliseconds(call: Callable[[], object], repeats: int = 31) -> float:
    """Return the median time of a call."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def main() -> None:
    """Measure our page beside what the client library makes of the same numbers."""
    broker = Broker(MemoryBackend)
    events = [f"app_{number % 5}.thing_{number}.saved" for number in range(30)]
    for number in range(40):
        types = [events[number % 30], events[(number + 7) % 30]]
        broker.consume(types, do_nothing, name=f"app.handler_number_{number}")
    for event in events:
        publish(broker, event, 20)
    wait_quiet(broker)
    registry = CollectorRegistry()
    install(lambda: [broker], registry=registry)
    page = render("", registry=registry)[0].decode()
    report = [f"{len(series_of(page))} series, {len(page)} bytes"]
    for accept in ("text/plain", OPENMETRICS):
        ours = milliseconds(lambda: render(accept, registry=registry))  # noqa: B023
        encode, _ = choose_encoder(accept)
        theirs = milliseconds(lambda: encode(registry))  # noqa: B023
        report.append(f"{accept}: {ours:.1f} ms; the client library {theirs:.1f} ms")
    broker.close(timeout=1)
    sys.stdout.write("\n".join(report) + "\n")


if __name__ == "__main__":
    main()
