"""A file for each process, in which every line that was written survives its kill."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

Kind = Literal[
    # of a handler
    "start",
    "end",
    "fail",
    # of a process
    "kill",
    "stall",
    "resume",
    # of the server
    "crash",
    "up",
    # of an emit
    "accepted",
    "refused",
    "unknown",
]


class Entry(msgspec.Struct, frozen=True):
    """One thing that a process did, or that was done to it."""

    time: float
    """By the clock that all processes of a machine share."""
    pid: int
    kind: Kind
    consumer: str = ""
    message: str = ""


def write(kind: Kind, consumer: str = "", *messages: str, pid: int = 0) -> None:
    """Write what happens at this moment to these messages. Thread-safe."""
    pid = pid or os.getpid()
    moment = time.monotonic()
    lines = "".join(
        json.dumps([moment, pid, kind, consumer, message]) + "\n"
        for message in messages or ("",)
    )
    path = folder() / f"{os.getpid()}.journal"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, lines.encode())  # in one piece, and then the system's
    finally:
        os.close(descriptor)


def folder() -> Path:
    """Where all processes of a run write."""
    return Path(os.environ["GOMQ_CHAOS_FOLDER"])


def has_handled(path: Path, pid: int) -> bool:
    """Whether this process has written anything."""
    return (path / f"{pid}.journal").exists()


def read(path: Path) -> Iterator[Entry]:
    """Read what all have written."""
    for file in path.glob("*.journal"):
        yield from _entries(file)


def read_of(path: Path, pid: int) -> Iterator[Entry]:
    """Read what this process has written."""
    file = path / f"{pid}.journal"
    if file.exists():
        yield from _entries(file)


def _entries(file: Path) -> Iterator[Entry]:
    for line in file.read_text().splitlines(keepends=True):
        # The last one may be half written: by a process at it, or killed at it.
        if line.endswith("\n"):
            yield Entry(*json.loads(line))


def in_work(path: Path, pid: int) -> set[tuple[str, str]]:
    """Return consumer and message of what this process has begun and not ended."""
    begun: set[tuple[str, str]] = set()
    for each in read_of(path, pid):
        if each.kind == "start":
            begun.add((each.consumer, each.message))
        elif each.kind in {"end", "fail"}:
            begun.discard((each.consumer, each.message))
    return begun
