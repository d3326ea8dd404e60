"""Compares the output of a command with a committed file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

GOLDEN: Final = Path(__file__).parent / "golden"


def check_output(text: str, name: str) -> None:
    """Fail if the text is not what is in the file.

    With ``GOMQ_WRITE_GOLDEN=1`` in the environment the file is written instead.
    """
    file = GOLDEN / name
    if os.environ.get("GOMQ_WRITE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()
