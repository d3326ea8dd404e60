"""Files of named numbers, in the client library's format.

Four bytes say how much of the file is used, four are free. Then come the entries: the
length of a key, the key, blanks up to a multiple of 8, the number and a time stamp.
"""

from __future__ import annotations

import importlib.util
import mmap
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from django_gomq.observability.metrics.catalogue import Kind, Mode

_HEADER: Final = 8
_LENGTH: Final = struct.Struct("i")
_NUMBER: Final = struct.Struct("d")
_NUMBERS: Final = struct.Struct("dd")
_PIECE: Final = 1 << 16  # the least that a file grows by


class Torn(Exception):  # noqa: N818 - what a reader saw, not what somebody did wrong
    """The bytes are no such file, or not yet."""


def entries(data: bytes, start: int, end: int) -> Iterator[tuple[str, int]]:
    """Yield every key and where its number is. Raises Torn."""
    position = start
    try:
        while position < end:
            (length,) = _LENGTH.unpack_from(data, position)
            key = data[position + 4 : position + 4 + length]
            position += 4 + length + _padding(length)
            if length <= 0 or position + _NUMBERS.size > end:
                raise Torn(f"an entry at {position} goes beyond {end}")
            yield key.decode(), position
            position += _NUMBERS.size
    except (struct.error, UnicodeDecodeError) as error:
        raise Torn(str(error)) from error


def _padding(length: int) -> int:
    return 8 - (length + 4) % 8  # from 1 to 8, so that numbers are aligned


def read_used(path: str) -> bytes:
    """Return the used part of a file, header and all; b"" if nothing is in it yet.

    Raises FileNotFoundError if there is none, and Torn.
    """
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - 3 times as fast
        header = file.read(_HEADER)
        if len(header) < _HEADER:
            return b""
        (used,) = _LENGTH.unpack_from(header)
        if used <= _HEADER:
            return b""
        data = header + file.read(used - _HEADER)
    if len(data) != used:
        raise Torn(f"{path} has {len(data)} bytes of {used}")
    return data


def read_numbers(path: str) -> Iterator[tuple[str, float]]:
    """Yield every key and its number; raises as ``read_used`` does."""
    data = read_used(path)
    for key, position in entries(data, _HEADER, len(data)):
        yield key, _NUMBER.unpack_from(data, position)[0]


def _make(path: str) -> None:
    # Under another name at first: the client library fails on a file without a header.
    unready = f"{path}.new"
    with open(unready, "wb") as file:  # noqa: PTH123 - as above
        file.write(_LENGTH.pack(_HEADER).ljust(_PIECE, b"\0"))
    os.replace(unready, path)  # noqa: PTH105 - as above


class NumberFile:
    """One such file, written by one thread of one process at a time.

    Readers need no lock: an entry is complete before it counts as used, and a number
    is written in one go. Room is allocated, not just reserved: on a full disk an
    append raises OSError, where a sparse file would end the process by a signal.
    """

    def __init__(self, path: str) -> None:
        """Open the file, or make it. Raises OSError, and Torn for anything else."""
        self.path = path
        self.positions: dict[str, int] = {}
        if not os.path.exists(path):  # noqa: PTH110 - as in read_used
            _make(path)
        self._file = open(path, "r+b", buffering=0)  # noqa: PTH123, SIM115 - as above
        try:
            self._open()
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> None:
        self._size = os.fstat(self._file.fileno()).st_size
        if self._size < _PIECE:
            raise Torn(f"{self.path} is too short")
        self._map = mmap.mmap(self._file.fileno(), self._size)
        (self._used,) = _LENGTH.unpack_from(self._map)
        if not _HEADER <= self._used <= self._size:
            raise Torn(f"{self.path} is shorter than it says")
        used = bytes(self._map[: self._used])
        self.positions.update(entries(used, _HEADER, self._used))

    def _grow(self, size: int) -> None:
        os.pwrite(self._file.fileno(), bytes(size - self._size), self._size)
        self._size = os.fstat(self._file.fileno()).st_size
        if self._size < size:
            raise OSError(f"{self.path} cannot grow to {size} bytes")

    def _set_used(self, used: int) -> None:
        self._map[0:4] = _LENGTH.pack(used)
        self._used = used

    def append(self, key: str, number: float, stamp: float) -> int:
        """Add an entry and return where its number is. Raises OSError."""
        encoded = key.encode()
        entry = _LENGTH.pack(len(encoded)) + encoded + b" " * _padding(len(encoded))
        end = self._used + len(entry) + _NUMBERS.size
        if end > self._size:
            self._grow(max(end, self._size * 2))
            self._map = mmap.mmap(self._file.fileno(), self._size)
        self._map[self._used : end] = entry + _NUMBERS.pack(number, stamp)
        self._set_used(end)
        position: int = end - _NUMBERS.size
        self.positions[key] = position
        return position

    def __getitem__(self, position: int) -> float:
        number: float = _NUMBER.unpack_from(self._map, position)[0]
        return number

    def __setitem__(self, position: int, number: float) -> None:
        # Not pack_into: that writes zeros first, which a reader may see.
        self._map[position : position + 8] = _NUMBER.pack(number)

    @property
    def is_in_place(self) -> bool:
        """Whether readers still find it under its path, and as long as it was.

        To write to what was cut off would end this process by a signal.
        """
        try:
            found = Path(self.path).stat()
        except FileNotFoundError:
            return False
        here = os.fstat(self._file.fileno())
        return os.path.samestat(found, here) and here.st_size >= self._size

    def close(self) -> None:
        """Close it, as it is. Idempotent."""
        self._map.close()
        self._file.close()


# The client library reads the kind, and of gauges the mode, from a file's name. What it
# takes for the pid is our slot; a pid never looks so, and no hook that cleans up after
# pids touches it.
_OURS: Final = re.compile(
    r"(counter|histogram|gauge_(livesum|livemax|livemin|max))_gomq-(\d+)\.db"
)
# No ".db": the client library would show fine buckets to Prometheus.
_FINE: Final = re.compile(r"histogram_gomq-(\d+)\.fine")
_LOCK: Final = "gomq_{}.lock"


class ListedFile(msgspec.Struct, frozen=True):
    """One file of ours: numbers of one kind of one slot."""

    path: str
    kind: Kind
    mode: Mode
    slot: int

    @property
    def is_live(self) -> bool:
        """Whether its numbers end with their process."""
        return self.mode.startswith("live")


class Listing(msgspec.Struct, frozen=True):
    """What lies in the directory at one moment."""

    ours: Sequence[ListedFile]
    theirs: Sequence[str]
    """Paths of what others share through the client library."""
    fine: Sequence[ListedFile] = ()
    """Ours too: histograms by their fine buckets."""

    def with_fine_buckets(self) -> Sequence[ListedFile]:
        """Return our files, histograms by fine buckets in place of the others."""
        return [*(file for file in self.ours if file.kind != "histogram"), *self.fine]

    def live_by_slot(self) -> Mapping[int, Sequence[ListedFile]]:
        """Return the files whose numbers end with their process, by slot."""
        found: dict[int, list[ListedFile]] = {}
        for file in self.ours:
            if file.is_live:
                found.setdefault(file.slot, []).append(file)
        return found


def look(directory: str) -> Listing:
    """Return what lies there. Raises OSError if it cannot be read."""
    ours: list[ListedFile] = []
    theirs: list[str] = []
    fine: list[ListedFile] = []
    for name in sorted(os.listdir(directory)):  # noqa: PTH208 - 20 times as fast
        path = os.path.join(directory, name)  # noqa: PTH118 - as above
        if found := _FINE.fullmatch(name):
            fine.append(ListedFile(path, "histogram", "fine", int(found[1])))
        if not name.endswith(".db"):
            continue
        found = _OURS.fullmatch(name)
        if found is None:
            theirs.append(path)
            continue
        kind: Kind = "gauge" if found[2] else found[1]  # type: ignore[assignment]
        ours.append(ListedFile(path, kind, found[2] or "", int(found[3])))  # type: ignore[arg-type]
    return Listing(ours, theirs, fine)


def number_path(directory: str, kind: Kind, mode: Mode, slot: int) -> str:
    """Return the path of the file for numbers of this kind."""
    if mode == "fine":
        return str(Path(directory, f"{kind}_gomq-{slot}.fine"))
    prefix = f"{kind}_{mode}" if mode else kind
    return str(Path(directory, f"{prefix}_gomq-{slot}.db"))


def lock_path(directory: str, slot: int) -> str:
    """Return the path of the file whose lock says that the slot's process lives."""
    return str(Path(directory, _LOCK.format(slot)))


def check_directory(path: str) -> str | None:
    """Return what keeps processes from sharing their numbers there, or None.

    Reads only what the directory says of itself; writes nothing.
    """
    if importlib.util.find_spec("fcntl") is None:
        return (
            "this system has no record locks (fcntl), by which processes know who lives"
        )
    if not Path(path).is_dir():
        return f"{path!r} is no directory"
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return f"{path!r} cannot be read and written by this user"
    return None
