"""The page: parts that are written by different commands, each over its last self."""

from __future__ import annotations

import re
from pathlib import Path

HEAD = """\
# Benchmarks

Written by the commands that each part names. What is measured, how, and what figures
do not say stands in [benchmarks/README.md](../benchmarks/README.md). Figures are
medians of interleaved rounds with their (least..most), ratios are made round by round.
Only what stands in one table compares.
"""
PARTS = ("goals", "servers", "pythons", "curves")


def replace_part(page: Path, part: str, text: str) -> None:
    """Put the text in the place of this part; the others stay as they are."""
    old = page.read_text() if page.exists() else ""
    kept = {name: _find(old, name) for name in PARTS}
    kept[part] = text
    body = "\n".join(
        f"{_mark(name, 'begin')}\n\n{found}\n\n{_mark(name, 'end')}\n"
        for name, found in kept.items()
        if found
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{HEAD}\n{body}")


def _find(page: str, part: str) -> str:
    begin, end = (re.escape(_mark(part, side)) for side in ("begin", "end"))
    found = re.search(f"{begin}\n(.*){end}", page, re.DOTALL)
    return found[1].strip() if found else ""


def _mark(part: str, side: str) -> str:
    return f"<!-- {part}: {side} -->"
