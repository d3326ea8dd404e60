"""The numbers of all processes that share a directory, on one page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from django_gomq.bus.process.fork import Process, current, register
from django_gomq.observability.metrics.broker_metrics import Families
from django_gomq.observability.metrics.collector import BusCollector

from .files import Listing, look
from .reader import Merger
from .slots import Slot, claim, clear, reap, remove_live
from .writer import SlotWriter

LOOK_SECONDS: Final = 5.0  # how often one whom nobody scrapes looks for dead processes
LOCK_SECONDS: Final = 1.0  # none holds it for longer than a few files take


class ProcessMetrics:
    """The part of one process; it takes a slot when it first has something to say.

    Thread-safe. Methods raise OSError where the directory cannot be used, and
    TimeoutError, an OSError too, where another thread does not come to its end.
    """

    def __init__(self, directory: str, process: Process) -> None:
        self.process = process
        self._directory = directory
        self._lock = Lock()
        self._slot: Slot | None = None
        self._lost: int | None = None
        self._writer: SlotWriter | None = None
        self._given: Mapping[str, float] = {}
        """What of our counts stays in files of slots that we left."""
        self._told = 0
        self._merger = Merger()
        self._next_look = 0.0

    def flush(self, own: BusCollector) -> None:
        """Write what changed since the last time; now and then clear the dead away."""
        with self._alone():
            self._write(own)
            if time.monotonic() >= self._next_look:
                self._look()

    def merge(self, note_failure: Callable[[str], None]) -> tuple[Families, Listing]:
        """Return the metrics of all processes as one, and what else lies there."""
        with self._alone():
            listing = self._look()
            return self._merger.merge(listing.ours, note_failure), listing

    def end(self, own: BusCollector) -> None:
        """Write the last numbers and leave the slot, if there is anything to tell."""
        with self._alone():
            counted = own.counted()
            if self._slot is None and counted == self._told:
                return
            self._write(own)
            self._told = counted
            self._drop(is_over=True)

    def abandon(self) -> None:
        """Close, in a forked child, what the parent had open; it notices nothing."""
        if self._writer is not None:
            self._writer.close()
        if self._slot is not None:
            self._slot.release()

    def leave(self) -> None:
        """Leave the slot as it is, without last numbers. Idempotent."""
        with self._alone():
            self._drop(is_over=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        # A signal handler may come while its own thread is here: it cannot wait.
        if not self._lock.acquire(timeout=LOCK_SECONDS):
            raise TimeoutError("another thread of this process writes its numbers")
        try:
            yield
        finally:
            self._lock.release()

    def _write(self, own: BusCollector) -> None:
        writer = self._settle_in()
        writer.trouble = None
        own.read(writer)
        if writer.trouble is not None:
            raise writer.trouble

    def _settle_in(self) -> SlotWriter:
        writer, slot = self._writer, self._slot
        if writer is not None and slot is not None:
            if slot.is_in_place and writer.is_in_place:
                return writer
            self._lost = slot.number  # somebody emptied the directory
            self._drop(is_over=False)
        slot = claim(self._directory)
        try:
            # Where we were before, the numbers are ours: nobody died.
            tidy = remove_live if slot.number == self._lost else reap
            tidy(self._directory, slot.number)
            writer = SlotWriter(self._directory, slot.number, self._given)
        except BaseException:
            slot.release()
            raise
        self._slot, self._writer, self._lost = slot, writer, None
        return writer

    def _drop(self, *, is_over: bool) -> None:
        """Close all; note as given what of ours is left in the files."""
        writer, self._writer = self._writer, None
        slot, self._slot = self._slot, None
        if writer is not None:
            is_left = writer.is_in_place
            self._given = {**self._given, **writer.given()} if is_left else {}
            writer.close()
        if slot is not None:
            try:
                if is_over and slot.is_in_place:
                    remove_live(self._directory, slot.number)
            finally:
                slot.release()

    def _look(self) -> Listing:
        self._next_look = time.monotonic() + LOOK_SECONDS
        listing = look(self._directory)
        clear(self._directory, listing)
        return listing


_ATTEMPTS: Final = 3  # files of others may go while the client library reads them
_KIND: Final = "SharedMetrics"


class SharedMetrics(Collector):
    """Writes what this process counted where others read it, and reads all of it.

    Thread-safe. Made before a fork, it gives each process a slot of its own, at the
    first ``flush``. What goes wrong is counted in ``gomq_telemetry_errors_total``,
    logged once and never raised.
    """

    def __init__(self, directory: str, own: BusCollector) -> None:
        """Touches no file."""
        self.own = own
        own.failures.expect(_KIND)
        self._directory = str(Path(directory).absolute())
        self._share: ProcessMetrics | None = None
        self._inherited: list[ProcessMetrics] = []
        register(self)

    def after_in_child(self, process: Process) -> None:
        """Forget, untouched, what belongs to the parent of this process."""
        share = self._share
        if share is not None and share.process is not process:
            self._inherited.append(share)
            self._share = None

    def flush(self) -> bool:
        """Write what changed since the last time; return whether all went well.

        Blocks for as long as a few files take.
        """
        return self._guard(lambda: self._here().flush(self.own))

    def end(self) -> None:
        """Write the last numbers and leave the slot, if anything was counted at all.

        Idempotent; what is counted later can be flushed all the same.
        """
        self._guard(lambda: self._here().end(self.own))

    def leave(self) -> None:
        """Leave the slot without last numbers, as for another configuration."""
        current()
        if self._share is not None:
            self._guard(self._share.leave)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all processes, and what others share there.

        Where the directory cannot be used, those of this process alone.
        """
        found: list[Metric] = []
        if self.flush() and self._guard(lambda: found.extend(self._merge())):
            yield from found
        else:
            yield from self.own.collect()

    def _here(self) -> ProcessMetrics:
        process = current()
        share = self._share
        if share is None:
            with process.lock:
                while self._inherited:
                    self._inherited.pop().abandon()
                share = self._share = self._share or ProcessMetrics(
                    self._directory, process
                )
        return share

    def _guard(self, step: Callable[[], object]) -> bool:
        try:
            step()
        except Exception:  # noqa: BLE001 - no trouble with files reaches a handler
            self._note("Numbers of this process are not shared")
            return False
        return True

    def _note(self, text: str) -> None:
        text = f"{text} in PROMETHEUS_MULTIPROC_DIR, {self._directory!r}"
        self.own.failures.note(_KIND, text)

    def _merge(self) -> Iterable[Metric]:
        families, listing = self._here().merge(self._note_unreadable)
        return [*families.all(), *self._theirs(listing.theirs)]

    def _note_unreadable(self, path: str) -> None:
        self._note(f"{path!r} cannot be read")

    def _theirs(self, paths: Iterable[str]) -> Iterable[Metric]:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return list(MultiProcessCollector.merge(paths))
            except Exception:  # noqa: BLE001 - as many as a file may be torn in
                if attempt == _ATTEMPTS:
                    self._note("What others share is left out; a file cannot be read")
                paths = look(self._directory).theirs
        return []
