"""The ward's journal, one file for all its processes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

What = Literal["slow", "stuck", "fast", "asked", "fork", "storm", "accepted", "at_hand"]

_APPEND = os.O_APPEND | os.O_CREAT | os.O_WRONLY


@dataclass(frozen=True, slots=True)
class Note:
    """A line: a round that was handled, a request that came, a fork, a storm."""

    what: str
    pid: int
    """Of the process that wrote it."""
    emitter: int
    """The process that emitted the round, or the one that wrote."""
    number: int
    """Of the round in its emitter; how many are to be emitted, or locks are held."""


def note(what: What, number: int, emitter: int | None = None) -> None:
    """Write a line that no other process can break."""
    note_all(what, [number], emitter)


def note_all(what: What, numbers: Iterable[int], emitter: int | None = None) -> None:
    """Write a line for each number, all at once."""
    pid = os.getpid()
    lines = [f"{what} {pid} {emitter or pid} {number}\n" for number in numbers]
    file = os.open(Path(os.environ["WARD_FOLDER"]) / "journal", _APPEND)
    try:
        os.write(file, "".join(lines).encode())
    finally:
        os.close(file)


def read(folder: Path, *whats: What) -> list[Note]:
    """Return what was noted so far about these."""
    file = folder / "journal"
    text = file.read_text() if file.exists() else ""
    lines = text.rpartition("\n")[0].splitlines()  # without one that is half written
    starts = tuple(f"{one} " for one in whats)
    return [_parse(*line.split()) for line in lines if line.startswith(starts)]


def _parse(what: str, pid: str, emitter: str, number: str) -> Note:
    return Note(what, int(pid), int(emitter), int(number))
