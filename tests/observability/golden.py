"""Compares the series of a page of metrics with a committed list of them."""

from __future__ import annotations

import os
import re
from pathlib import Path

HERE = Path(__file__).parent

_SAMPLE = re.compile(r"(gomq_[a-z_]+(?:\{.*?\})?) \S+(?: # .*)?")
_VERSION = re.compile(r'(gomq_build_info\{version=)"[^"]*"')


def series_of(text: str) -> list[str]:
    """Return ``name{labels}`` of our series on a page, sorted; versions as ``*``."""
    lines = (_SAMPLE.fullmatch(line) for line in text.splitlines())
    return sorted(_VERSION.sub(r'\1"*"', found[1]) for found in lines if found)


def check_series(text: str, golden: Path) -> None:
    """Fail if the series of the page are not those in the file, and say which.

    With ``GOMQ_WRITE_GOLDEN=1`` in the environment the file is written instead.
    """
    found = series_of(text)
    if os.environ.get("GOMQ_WRITE_GOLDEN"):
        golden.write_text("\n".join(found) + "\n")
    wanted = golden.read_text().splitlines()
    assert len(found) == len(set(found)), "a series stands twice on the page"
    assert sorted(set(found) - set(wanted)) == [], f"not in {golden.name}"
    assert sorted(set(wanted) - set(found)) == [], f"in {golden.name} alone"
