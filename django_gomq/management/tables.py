"""Aligned tables of text that fit their screen, in its colours where it has some."""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import msgspec
from django.core.management.base import OutputWrapper
from django.core.management.color import color_style

WIDTH: Final = 80  # of what is no terminal: a file, a pipe
_NARROWEST: Final = 40
_GAP: Final = "  "
_COMMA: Final = ", "
# The number of a line stays with its file.
_WORD: Final = re.compile(r"[^ ./]+(?:\.py:\d+)?[ ./]?|[ ./]")
_LEAST: Final = 8  # characters that stay together where nothing else helps


class Marked(msgspec.Struct, frozen=True):
    """A cell in a colour of Django's palette: ``ERROR``, ``WARNING`` and the like."""

    cell: str | Sequence[str]
    role: str


Cell = str | Sequence[str] | Marked
"""One text, or a list of texts; each goes on over several lines where it must."""


class Screen(msgspec.Struct, frozen=True):
    """What tables are drawn on: plain text of 80 columns, or a terminal."""

    width: int = WIDTH
    style: Any = None
    """Django's; None writes no colour."""

    def paint(self, role: str, text: str) -> str:
        """Return the text in this colour."""
        return getattr(self.style, role)(text) if self.style and text else text

    def sentence(self, role: str, text: str) -> str:
        """Return a sentence in this colour, over several lines where it must."""
        lines = textwrap.wrap(
            text,
            self.width,
            subsequent_indent=_GAP,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return "\n".join(self.paint(role, line) for line in lines)

    def table(
        self,
        title: str,
        headers: Sequence[str],
        rows: Sequence[Sequence[Cell]],
        *,
        right: Collection[str] = (),
    ) -> str:
        """Return a table under its title, or an empty text where there are no rows.

        It is as wide as the screen at most; texts go on over several lines, and are
        never cut. ``right`` are the headers of columns of numbers.
        """
        if not rows:
            return ""
        numbers = [header in right for header in headers]
        listed = [[_items_of(cell) for cell in row] for row in rows]
        room = self.width - len(_GAP) * len(headers)
        widths = _widths(headers, listed, numbers, room)
        lines = [self.paint("MIGRATE_HEADING", title)]
        lines += self._lines([[header] for header in headers], widths, numbers, ())
        for items, row in zip(listed, rows, strict=True):
            roles = [cell.role if isinstance(cell, Marked) else "" for cell in row]
            lines += self._lines(items, widths, numbers, roles)
        return "\n".join(lines)

    def _lines(
        self,
        cells: Sequence[Sequence[str]],
        widths: Sequence[int],
        numbers: Sequence[bool],
        roles: Sequence[str],
    ) -> Iterable[str]:
        """Yield the lines of one row."""
        broken = [
            _wrapped(cell, width) for cell, width in zip(cells, widths, strict=True)
        ]
        for number in range(max(map(len, broken))):
            line = ""
            for at, lines in enumerate(broken):
                text = lines[number] if number < len(lines) else ""
                padding = " " * (widths[at] - len(text))
                painted = self.paint(roles[at], text) if roles and roles[at] else text
                cell = padding + painted if numbers[at] else painted + padding
                line += _GAP + cell
            yield line.rstrip()


def screen_of(output: OutputWrapper, *, no_color: bool, force_color: bool) -> Screen:
    """Return what a command writes to; colours as Django's options and NO_COLOR say."""
    is_terminal = output.isatty()
    wants_color = is_terminal and not os.environ.get("NO_COLOR")
    is_coloured = force_color or (wants_color and not no_color)
    columns = shutil.get_terminal_size((WIDTH, 24)).columns if is_terminal else WIDTH
    return Screen(
        max(columns, _NARROWEST),
        color_style(force_color=force_color) if is_coloured else None,
    )


def _items_of(cell: Cell) -> Sequence[str]:
    text = cell.cell if isinstance(cell, Marked) else cell
    return [text] if isinstance(text, str) else text


def _widths(
    headers: Sequence[str],
    rows: Sequence[Sequence[Sequence[str]]],
    numbers: Sequence[bool],
    room: int,
) -> list[int]:
    """Return the widths of the columns; what is broken first are lists, then names."""
    columns = list(zip(*rows, strict=True))
    widths = [
        max(len(header), *(len(_COMMA.join(cell)) for cell in cells))
        for header, cells in zip(headers, columns, strict=True)
    ]
    for longest in (_longest_item, _longest_word, _longest_chunk):
        least = [
            max(
                _longest_word([header]),
                *((_longest_item if is_number else longest)(cell) for cell in cells),
            )
            for header, cells, is_number in zip(headers, columns, numbers, strict=True)
        ]
        _shrink(widths, least, room)
    return widths


def _longest_item(items: Sequence[str]) -> int:
    return max(map(len, _with_commas(items)), default=0)


def _longest_word(items: Sequence[str]) -> int:
    words = (word.rstrip() for text in _with_commas(items) for word in _words(text))
    return max(map(len, words), default=0)


def _longest_chunk(items: Sequence[str]) -> int:
    return min(_longest_word(items), _LEAST)


def _with_commas(items: Sequence[str]) -> list[str]:
    return [*(f"{item}," for item in items[:-1]), *items[-1:]]


def _shrink(widths: list[int], least: Sequence[int], room: int) -> None:
    while sum(widths) > room:
        broad = [at for at, width in enumerate(widths) if width > least[at]]
        if not broad:
            return
        widths[max(broad, key=lambda at: widths[at])] -= 1


def _words(text: str) -> list[str]:
    """Return the parts of a name or path, each with the sign behind it."""
    return _WORD.findall(text)


def _wrapped(items: Sequence[str], width: int) -> list[str]:
    lines: list[str] = []
    for text in _with_commas(items):
        if lines and len(lines[-1]) + 1 + len(text) <= width:
            lines[-1] += f" {text}"
        else:
            lines += _broken(text, width)
    return lines or [""]


def _broken(text: str, width: int) -> list[str]:
    """Break one text behind its dots and spaces, or anywhere if that is not enough."""
    lines = [""]
    for word in _words(text) if len(text) > width else [text]:
        if len(lines[-1]) + len(word.rstrip()) <= width:
            lines[-1] += word
            continue
        chunks = [word[at : at + width] for at in range(0, len(word), width)]
        lines += chunks
    return [line.rstrip() for line in lines if line] or [""]
