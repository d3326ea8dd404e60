"""Markdown tables that can be read in a terminal too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.figures import GroupResults, Source, error_of, figure_of
from benchmarks.units import write

Row = Sequence[str]


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of every case."""

    heading: str
    source_of: Callable[[str], Source]
    unit: str


def draw(heading: Row, rows: Sequence[Row]) -> str:
    """Return a table whose columns stand under one another."""
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(_line(row, widths) for row in (heading, rule, *rows))


def _line(row: Row, widths: Sequence[int]) -> str:
    cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
    return f"| {' | '.join(cells)} |"


def draw_cases(
    first: str, cases: Sequence[str], columns: Sequence[Column], results: GroupResults
) -> str:
    """Return a table of cases, in that order, with these figures of each."""
    heading = [first, *(column.heading for column in columns)]
    rows = [
        [case, *(_cell(column, case, results) for column in columns)] for case in cases
    ]
    return draw(heading, rows)


def _cell(column: Column, case: str, results: GroupResults) -> str:
    return write(figure_of(column.source_of(case), results), column.unit)


def errors_in(results: GroupResults) -> Iterator[tuple[str, str, str]]:
    """Yield group, case and error of every case that could not run."""
    for group, cases in results.items():
        for case, answers in cases.items():
            error = error_of(answers)
            if error is not None:
                yield group, case, error


def draw_errors(results: GroupResults) -> str:
    """Return a table of what could not run; an empty text where all could."""
    rows = [
        [group, case, f"`{error.replace('|', '/')}`"]
        for group, case, error in errors_in(results)
    ]
    return draw(["group", "could not run", "why"], rows) if rows else ""
