"""The ward's journal, one file for all its processes; it knows no event."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

What = Literal["slow", "stuck", "asked", "fork"]

_APPEND = os.O_APPEND | os.O_CREAT | os.O_WRONLY


@dataclass(frozen=True, slots=True)
class Note:
    """A line: a round that was handled, a request that came, a fork."""

    what: str
    pid: int
    """Of the process that wrote it."""
    emitter: int
    """The process that emitted the round, or the one that wrote."""
    number: int
    """Of the round in its emitter; how many are to be emitted, or locks are held."""


def note(what: What, number: int, emitter: int | None = None) -> None:
    """Write a line that no other process can break."""
    pid = os.getpid()
    line = f"{what} {pid} {emitter or pid} {number}\n"
    file = os.open(Path(os.environ["WARD_FOLDER"]) / "journal", _APPEND)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def read(folder: Path, *whats: What) -> list[Note]:
    """Return what was noted so far about these."""
    file = folder / "journal"
    lines = file.read_text().splitlines() if file.exists() else []
    notes = [_parse(*line.split()) for line in lines]
    return [one for one in notes if one.what in whats]


def _parse(what: str, pid: str, emitter: str, number: str) -> Note:
    return Note(what, int(pid), int(emitter), int(number))
