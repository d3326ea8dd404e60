"""What is to be measured: cases, in groups that take turns; it runs nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to measure; it lives in a process of its own."""

    name: str
    target: str
    """``module:callable``; called with ``options``, it returns what one run calls."""
    options: Mapping[str, Any] = field(default_factory=dict)
    is_ours: bool = True
    """Whether its failure is ours; a peer that cannot run is a result."""
    is_fresh: bool = False
    """Whether every run gets a new process, as memory once touched stays resident."""
    python: str = sys.executable


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Cases that take turns: only what is in one group may be compared."""

    name: str
    cases: Sequence[Case]
    runs: int
    warm_ups: int = 1
    """Rounds that do not count: threads start in them, and caches fill."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much work a plan asks for."""

    runs: int
    """Rounds; groups of cheap cases take more."""
    part: float
    """Of the full number of messages."""

    def of(self, count: int) -> int:
        """Return that many, scaled down."""
        return max(int(count * self.part), 1)


FULL = Scale(5, 1.0)
QUICK = Scale(2, 0.1)


def on_each(pythons: Mapping[str, str], group: Group) -> Group:
    """Return the group with every case once for each interpreter, side by side."""
    cases = [
        replace(case, name=lane_of(case.name, label), python=python)
        for case in group.cases
        for label, python in pythons.items()
    ]
    return replace(group, cases=cases)


def lane_of(case: str, label: str) -> str:
    """Return the name of a case on one interpreter; without a label, its own."""
    return f"{case}, Python {label}" if label else case
