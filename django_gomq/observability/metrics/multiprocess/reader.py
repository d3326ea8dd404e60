"""Adds up what all slots of a directory hold; it writes no file."""

from __future__ import annotations

import json
import operator
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from django_gomq.observability.metrics.broker_metrics import Families
from django_gomq.observability.metrics.catalogue import ABOUT, About

from .files import ListedFile, Torn, entries, read_used

_ATTEMPTS: Final = 3  # a file may be replaced while it is read


class _Series(msgspec.Struct, frozen=True, eq=False):
    """What one key in a file stands for; one object for equal series."""

    about: About
    labels: tuple[str, ...]
    bound: str | None = None
    """Of a histogram: the bucket, or None for the sum."""


class _Layout(msgspec.Struct, eq=False):
    """What is where in one file: entries are only ever added at its end."""

    stamp: bytes
    used: int = 8
    series: list[_Series | None] = msgspec.field(default_factory=list)
    indices: list[int] = msgspec.field(default_factory=list)
    """Positions in the file, in numbers of eight bytes."""


class UnreadableError(Exception):
    """A file of numbers cannot be read."""

    def __init__(self, path: str, error: Exception) -> None:
        super().__init__(
            f"{path} cannot be read: {error}. If that does not pass, remove it: what "
            "it counted is lost"
        )
        self.path = path


class Merger:
    """Reads our files again and again, and parses each key once.

    To be used by one thread at a time. Files may be written, made and removed at any
    moment while it reads.
    """

    def __init__(self) -> None:
        self._layouts: dict[str, _Layout] = {}
        self._by_key: dict[str, _Series | None] = {}
        self._series: dict[tuple[str, tuple[str, ...], str | None], _Series] = {}

    def merge(self, files: Iterable[ListedFile]) -> Families:
        """Return the metrics of these files as one.

        Raises UnreadableError if a file cannot be read; none of a file that is gone.
        """
        totals: dict[_Series, float] = {}
        paths = set()
        for file in files:
            try:
                self._add(file, totals)
            except (OSError, Torn) as error:
                raise UnreadableError(file.path, error) from error
            paths.add(file.path)
        for path in self._layouts.keys() - paths:
            del self._layouts[path]
        out = Families()
        _fill(out, totals)
        return out

    def _add(self, file: ListedFile, totals: dict[_Series, float]) -> None:
        data = _read(file.path)
        if not data:
            return
        layout = self._layout(file.path, data)
        numbers = memoryview(data).cast("d")
        reduce = _REDUCE[file.mode.removeprefix("live")]
        for series, index in zip(layout.series, layout.indices, strict=True):
            if series is None:
                continue
            number = numbers[index]
            before = totals.get(series)
            totals[series] = number if before is None else reduce(before, number)

    def _layout(self, path: str, data: bytes) -> _Layout:
        stamp = _stamp(data)
        layout = self._layouts.get(path)
        if layout is None or layout.stamp != stamp or layout.used > len(data):
            layout = self._layouts[path] = _Layout(stamp)
        for key, position in list(entries(data, layout.used, len(data))):
            layout.series.append(self._find(key))
            layout.indices.append(position // 8)
        layout.used = len(data)
        return layout

    def _find(self, key: str) -> _Series | None:
        if key not in self._by_key:
            series = _parse(key)
            if series is not None:
                # Keys may differ by their help text, after an upgrade.
                same = series.about.name, series.labels, series.bound
                series = self._series.setdefault(same, series)
            self._by_key[key] = series
        return self._by_key[key]


def _stamp(data: bytes) -> bytes:
    """Return what tells a file from an earlier one of its name: how it begins."""
    _, first = next(entries(data, 8, len(data)))
    key, time_made = data[8:first], data[first + 8 : first + 16]
    return key + time_made


def _read(path: str) -> bytes:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return read_used(path)
        except FileNotFoundError:
            return b""  # its process ended, or the directory was emptied
        except Torn:
            if attempt == _ATTEMPTS:
                raise
    return b""


def _parse(key: str) -> _Series | None:
    """Return what a key says, or None if no metric of today is meant."""
    try:
        family, name, labels, _ = json.loads(key)
        bound = labels.pop("le", None)
    except (ValueError, TypeError, AttributeError):
        return None
    about = ABOUT.get(family)
    if about is None or labels.keys() != set(about.labels):
        return None
    is_sum = name.endswith("_sum")
    if about.kind == "histogram" and is_sum is not (bound is None):
        return None
    return _Series(about, tuple(labels[label] for label in about.labels), bound)


def _fill(out: Families, totals: Mapping[_Series, float]) -> None:
    buckets: dict[tuple[str, tuple[str, ...]], dict[str | None, float]]
    buckets = defaultdict(dict)
    for series, number in totals.items():
        if series.about.kind == "histogram":
            where = series.about.name, series.labels
            buckets[where][series.bound] = number
        else:
            out.by_name[series.about.name].add_metric(series.labels, number)
    for (name, labels), counts in buckets.items():
        sum_seconds = counts.pop(None, 0.0)
        out.by_name[name].add_metric(labels, _cumulated(counts), sum_seconds)


def _cumulated(counts: Mapping[Any, float]) -> Sequence[tuple[str, float]]:
    total = 0.0
    found = []
    for bound in sorted(counts, key=float):
        total += counts[bound]
        found.append((bound, total))
    return found


_REDUCE: Final[Mapping[str, Any]] = {
    "": operator.add,
    "fine": operator.add,
    "sum": operator.add,
    "max": max,
    "min": min,
}
