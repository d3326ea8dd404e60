"""Says what numbers of several processes cost: ``python -m benchmarks.multiprocess``.

Three worker processes have 30 events and 40 consumers of two types each, and share a
directory. Then 200 workers come and go, one after another. Beside each figure is what
the client library makes of its own files with the same series. It prints a table.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from django_gomq import Message
from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.broker import Broker
from django_gomq.bus.worker.worker import Worker
from django_gomq.observability.metrics import install, render
from django_gomq.observability.metrics.collector import BusCollector
from django_gomq.observability.metrics.multiprocess.collector import SharedMetrics
from django_gomq.observability.metrics.registration import flush

LIVE: Final = 3
RECYCLED: Final = 200
REPEATS: Final = 31
EVENTS: Final = [f"app_{number % 5}.thing_{number}.saved" for number in range(30)]


def main() -> None:
    """Measure, and print a table."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with TemporaryDirectory(prefix="gomq-bench-") as folder:
        _measure(folder)


def _measure(folder: str) -> None:
    with _others(LIVE - 1, folder):
        broker, worker = _site()
        registry = CollectorRegistry()
        install(lambda: [broker], lambda: worker, registry=registry, directory=folder)
        page = render("", registry=registry)[0]
        series = page.count(b"\ngomq_")
        print(f"{LIVE} processes, {series} series; medians of {REPEATS}, in ms\n")
        _row("", "ours", "client library")
        _row("flush, nothing changed", _ms(lambda: flush(registry)))
        _row(
            "flush, all consumers worked",
            _ms(lambda: flush(registry), lambda: _use(broker)),
        )
        _row("scrape", _ms(lambda: render("", registry=registry)), _theirs(folder))
        for _ in range(RECYCLED):
            _recycle(folder)
        ours = _ms(lambda: render("", registry=registry))
        with TemporaryDirectory(prefix="gomq-bench-") as dead:
            _as_the_library_leaves_them(folder, dead)
            _row(f"scrape after {RECYCLED} workers", ours, _theirs(dead, 3))
            _row("files then", _files_in(folder), _files_in(dead))
        broker.close(timeout=1)


def _site() -> tuple[Broker, Worker]:
    """Make a site and send a message through every consumer: no number is a cheap 0."""
    worker = Worker()
    broker = Broker(MemoryBackend, get_worker=lambda: worker)
    for number in range(40):
        types = [EVENTS[number % 30], EVENTS[(number + 7) % 30]]
        name = f"app.handler_number_{number}"
        broker.consume(types, lambda message: None, name=name)
    _use(broker)
    return broker, worker


def _use(broker: Broker) -> None:
    for event in EVENTS:
        broker.publish(Message(event), timeout=1)
    while not broker.stats().is_quiet:
        time.sleep(0.001)


@contextmanager
def _others(count: int, folder: str) -> Iterator[None]:
    """Have other processes of this site live in the meantime."""
    reader, writer = os.pipe()
    ready, told = os.pipe()
    children = []
    for _ in range(count):
        child = os.fork()
        if not child:
            os.close(writer)
            _share(folder).flush()
            os.write(told, b".")
            os.read(reader, 1)
            os._exit(0)
        children.append(child)
        os.read(ready, 1)
    try:
        yield
    finally:
        os.close(writer)
        for child in children:
            os.waitpid(child, 0)


def _share(folder: str) -> SharedMetrics:
    broker, worker = _site()
    return SharedMetrics(folder, BusCollector(lambda: [broker], lambda: worker))


def _recycle(folder: str) -> None:
    """Let one worker process start, count, and be killed or end in order."""
    child = os.fork()
    if not child:
        sharing = _share(folder)
        sharing.flush()
        if os.getpid() % 2:
            sharing.end()
        os._exit(0)
    os.waitpid(child, 0)


def _as_the_library_leaves_them(folder: str, dead: str) -> None:
    """Make what the client library has after the same: files of every pid.

    Those of live gauges are gone, as its hook for dead children removes them.
    """
    for source in Path(folder).glob("*_gomq-0.db"):
        kind = source.name.removesuffix("_gomq-0.db")
        for pid in range(LIVE if "live" in kind else LIVE + RECYCLED):
            shutil.copy(source, Path(dead, f"{kind}_{pid}.db"))


def _files_in(folder: str) -> str:
    return str(len(list(Path(folder).iterdir())))


def _theirs(folder: str, repeats: int = REPEATS) -> float:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=folder)
    return _ms(lambda: generate_latest(registry), repeats=repeats)


def _ms(
    call: Callable[[], object],
    before: Callable[[], object] = lambda: None,
    repeats: int = REPEATS,
) -> float:
    times = []
    for _ in range(repeats):
        before()
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def _row(name: str, *figures: float | str) -> None:
    texts = [one if isinstance(one, str) else f"{one:.1f}" for one in figures]
    print(f"{name:32}" + "".join(f"{text:>16}" for text in texts))


if __name__ == "__main__":
    main()
