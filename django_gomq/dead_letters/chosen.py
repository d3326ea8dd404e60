"""Which dead letters somebody has chosen on a page, and what is done with them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from hashlib import sha256

import msgspec
from django.db.models import QuerySet

from django_gomq.bus.dead_letters import fault_of
from django_gomq.models import StoredDeadLetter

from .rows import steps


def key_of(consumer: str, fault: str) -> str:
    """Return a short name of what is behind dead letters, for forms and addresses."""
    return sha256(f"{consumer}\n{fault}".encode()).hexdigest()[:16]


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """Some dead letters: single ones, those of faults, or all; none of later ones."""

    ids: Collection[int] = ()
    keys: Collection[str] = ()
    """Of ``key_of``."""
    all: bool = False
    last: int
    """The newest that was on the page: nobody has agreed to what came since."""

    def __bool__(self) -> bool:
        """Whether anything is chosen."""
        return bool(self.ids or self.keys or self.all)

    def steps(self, rows: QuerySet[StoredDeadLetter]) -> Iterator[list[int]]:
        """Yield the ids of those of these rows, oldest first, in small lists.

        Reads all of them where faults are chosen, as no database masks numbers.
        """
        rows = rows.filter(id__lte=self.last)
        if self.ids and not self.keys and not self.all:
            rows = rows.filter(pk__in=self.ids)
        for ids in steps(rows):
            if self.all or not self.keys:
                yield ids
                continue
            found = rows.filter(pk__in=ids).values_list("id", "consumer", "error")
            if picked := [
                id_
                for id_, consumer, error in found
                if id_ in self.ids or key_of(consumer, fault_of(error)) in self.keys
            ]:
                yield sorted(picked)
