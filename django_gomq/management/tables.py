"""Aligned tables of text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

WIDTH: Final = 100
_GAP: Final = "  "
_COMMA: Final = ", "

Cell = str | Sequence[str]
"""A text stays on one line; a list of texts goes on over several where it must."""


def make_table(
    title: str,
    headers: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    right: Collection[str] = (),
) -> str:
    """Return a table under its title, or an empty text where there are no rows.

    It is 100 columns wide at most where its lists can be broken; no name is ever cut.
    ``right`` are the headers of columns of numbers.
    """
    if not rows:
        return ""
    lines = _lines(headers, rows, right)
    return "\n".join([title, *(f"{_GAP}{line}" for line in lines)])


def _lines(
    headers: Sequence[str], rows: Sequence[Sequence[Cell]], right: Collection[str]
) -> list[str]:
    listed = [[_as_list(cell) for cell in row] for row in rows]
    widths = _widths(headers, listed)
    lines = [_line(headers, widths, headers, right)]
    for row in listed:
        cells = [_broken(cell, width) for cell, width in zip(row, widths, strict=True)]
        for number in range(max(map(len, cells))):
            texts = [cell[number] if number < len(cell) else "" for cell in cells]
            lines.append(_line(texts, widths, headers, right))
    return lines


def _as_list(cell: Cell) -> Sequence[str]:
    return [cell] if isinstance(cell, str) else cell


def _widths(
    headers: Sequence[str], rows: Sequence[Sequence[Sequence[str]]]
) -> list[int]:
    widths, least = [], []
    for header, cells in zip(headers, zip(*rows, strict=True), strict=True):
        items = [len(item) + len(",") for cell in cells for item in cell]
        joined = [len(_COMMA.join(cell)) for cell in cells]
        widths.append(max(len(header), *joined))
        least.append(min(widths[-1], max(len(header), *items)))
    room = WIDTH - len(_GAP) * len(headers)
    while sum(widths) > room and widths != least:
        breakable = [i for i, width in enumerate(widths) if width > least[i]]
        widths[max(breakable, key=lambda i: widths[i])] -= 1
    return widths


def _broken(items: Sequence[str], width: int) -> list[str]:
    lines: list[str] = []
    for number, item in enumerate(items):
        text = item if number == len(items) - 1 else f"{item},"
        if lines and len(lines[-1]) + 1 + len(text) <= width:
            lines[-1] += f" {text}"
        else:
            lines.append(text)
    return lines or [""]


def _line(
    texts: Sequence[str],
    widths: Sequence[int],
    headers: Sequence[str],
    right: Collection[str],
) -> str:
    cells = [
        text.rjust(width) if header in right else text.ljust(width)
        for text, width, header in zip(texts, widths, headers, strict=True)
    ]
    return _GAP.join(cells).rstrip()
