"""The numbers of one process, in the files of its slot."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client.mmap_dict import mmap_key

from django_gomq.bus.counts import HistogramState
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.observability.metrics.broker_metrics import bound_texts
from django_gomq.observability.metrics.catalogue import About, Catalogue, Kind, Mode

from .files import NumberFile, Torn, number_path

logger = logging.getLogger("gomq.metrics")

_NOTHING: Final[Mapping[str, float]] = {}


class _Entry(msgspec.Struct, eq=False):
    """One number: where it is written, and what of it is ours."""

    about: About
    cells: NumberFile
    position: int
    base: float
    """What those before us in the slot counted; ours comes on top."""
    own: float

    def write(self, own: float) -> None:
        """Write what it has become."""
        self.own = own
        if self.about.kind != "gauge":
            own += self.base
        elif self.about.mode == "max":
            own = max(own, self.base)
        self.cells[self.position] = own


class SlotWriter(Catalogue):
    """All metrics of one process; what they are given is written where it changed.

    Counters and histograms that are in the slot's files are the base of ours, so that
    they neither go back nor count twice, and no file outlives its use. To be used by
    one thread at a time.
    """

    def __init__(
        self, directory: str, slot: int, given: Mapping[str, float] = _NOTHING
    ) -> None:
        """``given`` is what this process has left in other slots, or in this, before.

        Touches the files of this slot alone; what ended with the process before is to
        be removed first.
        """
        self.trouble: OSError | None = None
        """What kept a number from being written: the disk is full, for one."""
        self._directory = directory
        self._slot = slot
        self._given = given
        if not Path(number_path(directory, "histogram", "", slot)).exists():
            # Somebody removed what has the names of the client library's files.
            Path(number_path(directory, "histogram", "fine", slot)).unlink(
                missing_ok=True
            )
        self._files: dict[tuple[Kind, Mode], NumberFile] = {}
        self._entries: dict[str, _Entry] = {}
        super().__init__(self._make_column)

    def _make_column(self, about: About) -> _Column | _Distribution:
        if about.kind == "histogram":
            return _Distribution(about, self._enter)
        return _Column(about, self._enter)

    def _enter(
        self, about: About, name: str, labels: Mapping[str, str], own: float
    ) -> _Entry | None:
        """Return the entry of one series, which may be there from before us."""
        key = mmap_key(about.name, name, list(labels), [*labels.values()], about.text)
        if key not in self._entries:
            try:
                self._entries[key] = self._find(about, key, own)
            except OSError as error:
                self.trouble = error
                return None
        entry = self._entries[key]
        if entry.own != own:
            entry.write(own)
        return entry

    def _find(self, about: About, key: str, own: float) -> _Entry:
        given = self._given.get(key, 0.0)
        cells = self._cells(about.kind, about.mode)
        position = cells.positions.get(key)
        if position is None:
            # With its number at once: "0" would be an alert for some.
            position = cells.append(key, own - given, time.time())
            return _Entry(about, cells, position, -given, own)
        return _Entry(about, cells, position, cells[position] - given, given)

    def _cells(self, kind: Kind, mode: Mode) -> NumberFile:
        if (kind, mode) not in self._files:
            path = number_path(self._directory, kind, mode, self._slot)
            self._files[kind, mode] = _open(path)
        return self._files[kind, mode]

    @property
    def is_in_place(self) -> bool:
        """Whether readers find all files: nobody emptied the directory."""
        return all(cells.is_in_place for cells in self._files.values())

    def given(self) -> tuple[set[str], Mapping[str, float]]:
        """Return which counts of ours nobody reads any more, and what stays, by key."""
        in_place = {id(file) for file in self._files.values() if file.is_in_place}
        lost: set[str] = set()
        left: dict[str, float] = {}
        for key, item in self._entries.items():
            if item.about.kind == "gauge":
                continue
            if id(item.cells) in in_place:
                left[key] = item.own
            else:
                lost.add(key)
        return lost, left

    def close(self) -> None:
        """Close the files as they are. Idempotent."""
        for cells in self._files.values():
            cells.close()


Enter = Callable[[About, str, Mapping[str, str], float], _Entry | None]


class _Column:
    """The numbers of one counter or gauge, by labels."""

    def __init__(self, about: About, enter: Enter) -> None:
        self._about = about
        self._enter = enter
        is_counter = about.kind == "counter"
        self._name = f"{about.name}_total" if is_counter else about.name
        self._entries: dict[tuple[str, ...], _Entry] = {}

    def add_metric(self, labels: Sequence[str], value: float) -> None:
        where = tuple(labels)
        entry = self._entries.get(where)
        if entry is not None:
            if entry.own != value:
                entry.write(value)
            return
        pairs = dict(zip(self._about.labels, where, strict=True))
        entry = self._enter(self._about, self._name, pairs, value)
        if entry is not None:
            self._entries[where] = entry


class _Distribution:
    """The numbers of one histogram, by labels: for Prometheus, and the fine ones."""

    def __init__(self, about: About, enter: Enter) -> None:
        self._shown = _Buckets(about, enter, "bucket")
        fine = msgspec.structs.replace(about, mode="fine")
        # Under other names than those above, as what a slot was given goes by names.
        self._fine = _Buckets(fine, enter, "fine")
        self._told: dict[tuple[str, ...], tuple[Sequence[int], float]] = {}

    def add_state(
        self, labels: Sequence[str], state: HistogramState, bounds: tuple[float, ...]
    ) -> None:
        where = tuple(labels)
        told = state.counts, state.sum_seconds
        if self._told.get(where) == told:
            return
        is_whole = self._shown.write(where, state.within(bounds))
        if self._fine.write(where, state) and is_whole:
            self._told[where] = told


class _Buckets:
    """A histogram by some buckets: each bucket's own count, and the sum."""

    def __init__(self, about: About, enter: Enter, suffix: str) -> None:
        self._about = about
        self._enter = enter
        self._suffix = suffix
        self._entries: dict[tuple[str, ...], list[_Entry]] = {}

    def write(self, where: tuple[str, ...], state: HistogramState) -> bool:
        """Write it by labels; return whether that went well."""
        numbers = [*state.counts, state.sum_seconds]
        entries = self._entries.get(where)
        if entries is None:
            return self._add(where, bound_texts(state.bounds), numbers)
        for entry, number in zip(entries, numbers, strict=True):
            if entry.own != number:
                entry.write(number)
        return True

    def _add(
        self, where: tuple[str, ...], bounds: Sequence[str], numbers: Sequence[float]
    ) -> bool:
        pairs = dict(zip(self._about.labels, where, strict=True))
        name = f"{self._about.name}_{self._suffix}"
        series = [(name, {**pairs, "le": bound}) for bound in bounds]
        is_shown = self._about.mode != "fine"
        series.append((f"{self._about.name if is_shown else name}_sum", pairs))
        made = [
            self._enter(self._about, name, labels, number)
            for (name, labels), number in zip(series, numbers, strict=True)
        ]
        entries = [entry for entry in made if entry is not None]
        if len(entries) < len(made):
            return False
        self._entries[where] = entries
        return True


_TORN: Final = "%s is no file of numbers and is made anew: %s"


def _open(path: str) -> NumberFile:
    try:
        return NumberFile(path)
    except Torn as error:
        write_log(logger, logging.WARNING, _TORN, path, error)
        os.unlink(path)  # noqa: PTH108 - a text, as everywhere here
        return NumberFile(path)
