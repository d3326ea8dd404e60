"""Reads what the bus does now: one reader for all who look in this process.

A page calls ``read()``, and shows what is in ``django_gomq.live.reading``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Final
from weakref import WeakKeyDictionary

from django_gomq.bus.process.clock import Clock
from django_gomq.bus.process.fork import Process, current
from django_gomq.operations.moments import Key
from django_gomq.operations.viewing import view_of
from django_gomq.site import Site, brokers

from .assembling import Known, assemble
from .reading import Reading
from .sources import (
    DIRECTORY,
    DirectorySource,
    NumberSource,
    ProcessSource,
    TableSource,
)
from .times import Times, times_of

SHARED_SECONDS: Final = 1.0
"""So long a reading is that of all who ask."""


def read() -> Reading:
    """Return what the bus does now, of as many processes as can be known.

    That is of all processes of the site, where the migrations were applied and any of
    them tells what it does; else of those that share PROMETHEUS_MULTIPROC_DIR; else of
    this process. Processes tell more, and sooner, for some seconds after each reading.

    Blocks for the database and the directory, and while another thread reads. Asks the
    database five short questions, none of which grows with messages. Raises what the
    database raises, and ConfigurationError where django_gomq is not set up.
    Thread-safe; not for an event loop.
    """
    return _reader().read()


def read_times(broker: str, consumer: str) -> Times:
    """Return how long messages of a consumer waited and were handled, as ``read``."""
    return _reader().times((broker, consumer))


class _Reader:
    """Reads for all threads of a process, at most once a second."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._lock = Lock()
        self._latest: Reading | None = None
        self._until = 0.0
        self._table: TableSource | None = None
        directory = os.environ.get(DIRECTORY)
        self._directory = DirectorySource(directory) if directory else None
        self._process = ProcessSource(site)
        self._window = self._process.window
        """That of the latest reading."""

    def read(self) -> Reading:
        """Return the latest reading, or another one if that is old."""
        with self._lock:
            if self._latest is None or Clock.monotonic() >= self._until:
                self._latest = self._read()
                self._until = Clock.monotonic() + SHARED_SECONDS
            return self._latest

    def times(self, key: Key) -> Times:
        """Return the times of a consumer in the latest reading."""
        with self._lock:
            window = self._window
            return times_of(window.ticks, key, window.until)

    def _read(self) -> Reading:
        for source in self._sources():
            facts = source.look()
            if facts is not None:
                self._window = source.window
                return assemble(facts, source.window, _known(self.site))
        raise AssertionError("this process knows itself")

    def _sources(self) -> Iterator[NumberSource]:
        """Yield them, the one that knows most first."""
        if self._table is None:
            view = view_of(self.site)
            self._table = None if view is None else TableSource(view)
        if self._table is not None:
            yield self._table
        if self._directory is not None:
            yield self._directory
        yield self._process


_readers: Final[WeakKeyDictionary[Process, _Reader]] = WeakKeyDictionary()


def _reader() -> _Reader:
    site, process = _site(), current()
    with process.lock:
        reader = _readers.get(process)
        if reader is None or reader.site is not site:  # the settings were changed
            reader = _readers[process] = _Reader(site)
    return reader


def _site() -> Site:
    if brokers.site is None:
        brokers["default"]  # raises what says why there is none
    assert brokers.site is not None  # noqa: S101 - else that has raised
    return brokers.site


def _known(site: Site) -> Sequence[Known]:
    return [
        Known(alias, consumer, site.capabilities[alias].settles)
        for alias in site.brokers
        for consumer in site.consumers_of(alias)
        if consumer.enabled
    ]
