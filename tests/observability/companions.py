"""Processes that share a directory of numbers with the test, real ones or parts."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from django_gomq.backends.memory import MemoryBackend
from django_gomq.bus.broker import Broker
from django_gomq.bus.worker.worker import Worker
from django_gomq.observability.metrics.collector import BusCollector
from django_gomq.observability.metrics.multiprocess.collector import SharedMetrics

from .live import do_nothing, publish, wait_handled, wait_quiet
from .numbers import Page


class Companion:
    """One that counts in the directory: a site with one broker and two consumers."""

    def __init__(self, folder: Path) -> None:
        self.worker = Worker(threads=2)
        self.broker = Broker(MemoryBackend, get_worker=lambda: self.worker)
        self.broker.consume("record.saved", do_nothing, name="counts")
        self.broker.consume("record.saved", do_nothing, name="paused")
        self.collector = BusCollector(lambda: [self.broker], lambda: self.worker)
        self.sharing = SharedMetrics(str(folder), self.collector)

    def publish(self, count: int) -> None:
        """Publish, and wait until all is handled."""
        publish(self.broker, "record.saved", count)
        wait_quiet(self.broker)

    def hold(self, count: int) -> None:
        """Publish what one consumer leaves waiting."""
        self.broker.pause("paused")
        publish(self.broker, "record.saved", count)
        wait_handled(self.broker, "counts")

    def page(self) -> Page:
        """Return what a scrape of this one shows."""
        return page_of(self.sharing)

    def close(self) -> None:
        """End as a process does that is told to."""
        self.broker.close(timeout=1)
        self.worker.stop(timeout=1)
        self.sharing.end()


def page_of(sharing: SharedMetrics) -> Page:
    registry = CollectorRegistry()
    registry.register(sharing)
    return Page(registry)


class FineBuckets(Collector):
    """All that is shared, by fine buckets."""

    def __init__(self, sharing: SharedMetrics) -> None:
        self._sharing = sharing

    def collect(self) -> Iterator[Metric]:
        yield from self._sharing.collect_fine()


def fine_page_of(sharing: SharedMetrics) -> Page:
    """Return what whoever asks for fine buckets is shown."""
    registry = CollectorRegistry()
    registry.register(FineBuckets(sharing))
    return Page(registry)


def library_page(folder: Path) -> Page:
    """Return what any endpoint of the client library shows of the directory."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    return Page(registry)


@contextmanager
def living(work: Callable[[], object]) -> Iterator[int]:
    """Have a forked child that did its work and waits; it is killed at the end."""
    reader, writer = os.pipe()
    child = fork()
    if not child:
        status = 1
        try:
            work()
            os.write(writer, b".")
            signal.pause()
        except BaseException:  # noqa: BLE001 - it goes no further than this child
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    try:
        assert os.read(reader, 1) == b".", "the child failed"
        yield child
    finally:
        os.close(reader)
        kill(child)


def kill(child: int) -> None:
    """End a child at once, as the kernel does where memory is short. Idempotent."""
    try:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def run_to_the_end(work: Callable[[], object]) -> None:
    """Do the work in a forked child, and wait until it is gone."""
    child = fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - it goes no further than this child
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def fork() -> int:
    with warnings.catch_warnings():  # 3.12: a fork beside threads may deadlock
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()
