"""The numbers of all processes that share a directory, for who is none of them."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.metrics_core import Metric

from .files import ListedFile, Listing, look
from .reader import Merger, UnreadableError
from .slots import hold


class DirectoryError(Exception):
    """The directory has no numbers for us; the text says what to do."""


class SharedDirectory:
    """What is in one ``PROMETHEUS_MULTIPROC_DIR``. For one thread at a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._merger = Merger()

    def read(self) -> Sequence[Metric]:
        """Return what all processes counted, and what those alive hold now.

        Histograms have all the bounds that processes count by. Blocks for the disk.
        Raises DirectoryError where that is not to be had.
        """
        try:
            files = self._alive(look(self._path))
        except OSError as error:
            raise self._error(f"cannot be read ({error.strerror})") from error
        try:
            return self._merger.merge(files).all()
        except UnreadableError as error:
            text = f"has what is no file of numbers: {error.path}"
            raise self._error(text) from error

    def _alive(self, listing: Listing) -> Sequence[ListedFile]:
        """Return the files that count: what a process held goes with it."""
        ended = {slot for slot in listing.live_by_slot() if self._has_ended(slot)}
        return [
            file
            for file in listing.with_fine_buckets()
            if not (file.is_live and file.slot in ended)
        ]

    def _has_ended(self, slot: int) -> bool:
        """Whether no living process holds the slot; False where that cannot be told.

        The server's processes clear such slots away, and say in their log what was
        lost with them: not for a reader to do.
        """
        try:
            taken = hold(self._path, slot)
        except OSError:
            return False
        if taken is None:
            return False
        taken.release()
        return True

    def _error(self, what: str) -> DirectoryError:
        """Return what says which directory is meant, too."""
        return DirectoryError(
            f"The directory {self._path} {what}. Give the one that the server has as "
            "PROMETHEUS_MULTIPROC_DIR, as a user who may read it."
        )
