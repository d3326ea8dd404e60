"""Medians, spreads, and figures made of several cases, round by round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

GroupResults = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
"""By group and case, what it answered in each round."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A median over rounds, with its spread."""

    median: float
    least: float
    most: float


def summarise(values: Sequence[float | None]) -> Figure | None:
    """Return the median and the spread of the rounds that have a value."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Figure(statistics.median(known), min(known), max(known))


class Source(Protocol):
    """Anything that has one value for each round."""

    @property
    def group(self) -> str:
        """The group whose rounds these are."""

    def rounds(self, results: GroupResults) -> Sequence[float | None]:
        """Return the values in the order of the rounds; None where there is none."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric of one case."""

    group: str
    case: str
    metric: str

    def rounds(self, results: GroupResults) -> Sequence[float | None]:
        """Return what the case answered; None in rounds in which it failed."""
        answers = results.get(self.group, {}).get(self.case, [])
        return [answer.get(self.metric) for answer in answers]


@dataclass(frozen=True, slots=True)
class Derived:
    """A figure made of others, in each round by itself: the machine changes its mood.

    Ratios of medians would mix rounds that had the machine to themselves with others.
    """

    function: Callable[..., float]
    sources: tuple[Source, ...]

    @property
    def group(self) -> str:
        """The group of all sources: there is no round of two groups."""
        return self.sources[0].group

    def rounds(self, results: GroupResults) -> Sequence[float | None]:
        """Return the function of each round's values; None where one is missing."""
        values = [source.rounds(results) for source in self.sources]
        shortest = min(map(len, values))
        return [
            None if None in row else self.function(*row)
            for row in zip(*(column[:shortest] for column in values), strict=True)
        ]


def ratio(top: Source, bottom: Source) -> Derived:
    """Return the ratio of two figures."""
    return Derived(lambda one, other: one / other, (top, bottom))


def figure_of(source: Source, results: GroupResults) -> Figure | None:
    """Return the median and spread of a figure; None if no round has it."""
    return summarise(source.rounds(results))


def error_of(answers: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the first error of a case, if it has one."""
    return next((one["error"] for one in answers if "error" in one), None)
