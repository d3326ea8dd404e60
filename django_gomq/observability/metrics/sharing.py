"""The numbers of all processes that share a directory, as one; it registers nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from django_gomq.bus.process import Process, current, settle_in

from .collector import BusCollector
from .directory import look
from .share import Share

_ATTEMPTS: Final = 3  # files of others may go while the client library reads them
_KIND: Final = "Sharing"


class Sharing(Collector):
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
        self._share: Share | None = None
        self._inherited: list[Share] = []
        settle_in(self)

    def enter(self, process: Process) -> None:
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

    def _here(self) -> Share:
        process = current()
        share = self._share
        if share is None:
            with process.lock:
                while self._inherited:
                    self._inherited.pop().abandon()
                share = self._share = self._share or Share(self._directory, process)
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
