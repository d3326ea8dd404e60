"""The numbers of all processes that share a directory, on one page."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from django_gomq.bus.errors import describe_error
from django_gomq.bus.process.fork import Process, current, register
from django_gomq.observability.metrics.broker_metrics import Families
from django_gomq.observability.metrics.collector import (
    BusCollector,
    IncompleteError,
)
from django_gomq.observability.metrics.labels import SharedLabels

from .files import Listing, look
from .reader import Merger, UnreadableError
from .slots import Slot, claim, clear, reap, remove_live
from .writer import SlotWriter

LOOK_SECONDS: Final = 5.0  # how often one whom nobody scrapes looks for dead processes
LOCK_SECONDS: Final = 1.0  # none holds it for longer than a few files take
STALE_SECONDS: Final = 10.0  # several scrapes that show nothing new would be a lie


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
        self._labels = SharedLabels(directory)
        self._told = 0
        self._buried = 0
        self._written = -math.inf
        """When all was written last."""
        self._reading = Lock()
        self._merger, self._fine_merger = Merger(), Merger()
        self._next_look = 0.0

    def flush(self, own: BusCollector) -> None:
        """Write what changed since the last time; now and then clear the dead away.

        Leaves each of it to another thread that is at it.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._write(own)
        finally:
            self._lock.release()
        # Whoever reads meanwhile looks, too.
        if time.monotonic() >= self._next_look and self._reading.acquire(
            blocking=False
        ):
            try:
                self._look()
            finally:
                self._reading.release()

    def refresh(self, own: BusCollector) -> None:
        """Have numbers of this process in the files that are of now, or nearly.

        Another thread that writes them is waited for; if it takes its time, those of
        up to ten seconds before will do.
        """
        try:
            with _held(self._lock):
                self._write(own)
        except TimeoutError:
            if time.monotonic() > self._written + STALE_SECONDS:
                raise

    def merge(self, *, fine: bool = False) -> tuple[Families, Listing]:
        """Return the metrics of all processes as one, and what else lies there.

        Raises Unreadable, too. Needs no lock that those who write hold: see
        ``NumberFile``.
        """
        with _held(self._reading):
            listing = self._look()
            if fine:
                files = listing.with_fine_buckets()
                return self._fine_merger.merge(files), listing
            return self._merger.merge(listing.ours), listing

    def end(self, own: BusCollector) -> None:
        """Write the last numbers and leave the slot, if there is anything to tell."""
        with _held(self._lock):
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
        with _held(self._lock):
            self._drop(is_over=True)

    def _write(self, own: BusCollector) -> None:
        writer = self._settle_in()
        writer.trouble = None
        own.killed = self._buried
        own.read(writer, self._labels)
        if writer.trouble is not None:
            raise writer.trouble
        self._written = time.monotonic()

    def _settle_in(self) -> SlotWriter:
        writer, slot = self._writer, self._slot
        if writer is not None and slot is not None:
            if slot.is_in_place and writer.is_in_place:
                return writer
            self._lost = slot.number  # somebody emptied the directory
            self._labels.forget()
            self._drop(is_over=False)
        slot = claim(self._directory)
        try:
            if slot.number == self._lost:  # the numbers are ours: nobody died
                remove_live(self._directory, slot.number)
            else:
                found = reap(self._directory, slot.number)
                self._buried += found
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
            lost, left = writer.given()
            kept = {key: own for key, own in self._given.items() if key not in lost}
            self._given = {**kept, **left}
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
        found = clear(self._directory, listing)
        self._buried += found
        return listing


@contextmanager
def _held(lock: Lock) -> Iterator[None]:
    # A signal handler may come while its own thread has it: it cannot wait.
    if not lock.acquire(timeout=LOCK_SECONDS):
        raise TimeoutError("another thread of this process does not come to its end")
    try:
        yield
    finally:
        lock.release()


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

        Raises IncompleteError where something of it cannot be read, and where this
        process cannot add its own: a sum that is too small looks like a restart.
        """
        families, listing = self._merge()
        try:
            theirs = self._theirs(listing.theirs)
        except Exception as error:
            self._note("What others share cannot be read")
            raise IncompleteError(
                f"{self._directory}: what others share cannot be read: "
                f"{describe_error(error)}"
            ) from error
        yield from families.all()
        yield from theirs

    def collect_fine(self) -> Iterator[Metric]:
        """Yield our metrics alone, with all the buckets that are counted by."""
        families, _ = self._merge(fine=True)
        yield from families.all()

    def _merge(self, *, fine: bool = False) -> tuple[Families, Listing]:
        try:
            here = self._here()
            here.refresh(self.own)
            if self.own.was_whole:
                return here.merge(fine=fine)
            problem = "not every broker of this process tells its numbers"
        except TimeoutError as error:
            problem = str(error)  # the machine is busy: no fault of ours
        except (OSError, UnreadableError) as error:
            problem = describe_error(error)
            self._note("Numbers of this process are not shared")
        raise IncompleteError(f"{self._directory}: {problem}")

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

    def _theirs(self, paths: Iterable[str]) -> Iterable[Metric]:
        for _ in range(_ATTEMPTS - 1):
            try:
                return list(MultiProcessCollector.merge(paths))
            except Exception:  # noqa: BLE001 - as many as a file may be torn in
                paths = look(self._directory).theirs
        return list(MultiProcessCollector.merge(paths))
