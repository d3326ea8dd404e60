"""Reads the directory in which processes share their numbers; it changes none."""

from __future__ import annotations

from collections.abc import Sequence

from django.core.management.base import CommandError
from prometheus_client.metrics_core import Metric

from django_gomq.observability.metrics.directory import Listing, NumberFile, look
from django_gomq.observability.metrics.merging import Merger
from django_gomq.observability.metrics.slots import hold

from .exits import CANNOT_READ


class SharedNumbers:
    """The numbers of all processes that use one ``PROMETHEUS_MULTIPROC_DIR``."""

    def __init__(self, directory: str) -> None:
        self.name = directory
        self._merger = Merger()

    def read(self) -> Sequence[Metric]:
        """Return what all processes counted, and what those alive hold now.

        Raises CommandError, which says what to do, where that is not to be had.
        """
        unreadable: list[str] = []
        try:
            files = self._files(look(self.name))
        except OSError as error:
            raise self._error(f"cannot be read ({error.strerror})") from error
        families = self._merger.merge(files, unreadable.append)
        if unreadable:
            raise self._error(f"has what is no file of numbers: {unreadable[0]}")
        return families.all()

    def _files(self, listing: Listing) -> Sequence[NumberFile]:
        ended = {one for one in listing.live_by_slot() if self._has_ended(one)}
        return [one for one in listing.ours if not (one.is_live and one.slot in ended)]

    def _has_ended(self, slot: int) -> bool:
        """Whether no living process holds the slot; False where that cannot be told.

        The server's processes clear such slots away, and say in their log what was
        lost with them: not for a reader to do.
        """
        try:
            taken = hold(self.name, slot)
        except OSError:
            return False
        if taken is None:
            return False
        taken.release()
        return True

    def _error(self, what: str) -> CommandError:
        return CommandError(
            f"The directory {self.name} {what}. Give the one that the server has as "
            "PROMETHEUS_MULTIPROC_DIR, as a user who may read it.",
            returncode=CANNOT_READ,
        )
