"""Marks of thresholds in text, and the numbers in their place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from dashboards.thresholds import ALL, Threshold

_MARK: Final = re.compile(r"⟦(\w+)⟧")


class MarkError(ValueError):
    """A number could not be told from another one on its line."""


def fill(text: str) -> Iterator[str]:
    """Yield the lines with the defaults, each followed by a comment that names it.

    The comment is how ``manage.py gomq dashboards`` finds the number again, and how
    whoever reads the rules finds the option. Raises MarkError.
    """
    for line in text.splitlines():
        names = sorted(set(_MARK.findall(line)))
        yield _fill_line(line, [ALL[name] for name in names])


def plain(text: str) -> str:
    """Return the text with the defaults alone."""
    return _MARK.sub(lambda found: ALL[found[1]].number, text)


def _fill_line(line: str, thresholds: list[Threshold]) -> str:
    if not thresholds:
        return line
    if len(thresholds) > 1:
        raise MarkError(f"two thresholds on one line: {line}")
    (threshold,) = thresholds
    filled = plain(line)
    number = re.compile(rf"(?<![\w.]){re.escape(threshold.number)}(?![\d.])")
    if len(number.findall(filled)) != line.count(str(threshold)):
        raise MarkError(f"{threshold.number} stands twice: {line}")
    return f"{filled}  # {threshold.name}"
