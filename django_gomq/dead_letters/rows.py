"""The rows of dead letters, of all brokers: chosen, replayed, discarded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Final

import msgspec
from django.db import Error, connections, router, transaction
from django.db.backends.utils import CursorWrapper
from django.db.models import Count, F, Max, Min, Q, QuerySet

from django_gomq.backends.database import dead_letters as table
from django_gomq.backends.database.connection import DIALECTS
from django_gomq.bus.dead_letters import fault_of
from django_gomq.bus.patterns import Pattern
from django_gomq.capturing import is_live
from django_gomq.models import StoredDeadLetter
from django_gomq.relay import table as relay
from django_gomq.site import Site, brokers

from .store import TABLE, database_of

MAX_STEP: Final = 500
"""Dead letters of one transaction: short, so that no worker waits for it."""


_ID_DIGITS: Final = 19
_LAST: Final = datetime(9998, 12, 31, tzinfo=UTC).timestamp()


def moment_of(seconds: float) -> datetime:
    """Return a time of a row; 1970 for one that no calendar has."""
    return datetime.fromtimestamp(seconds if 0 <= seconds < _LAST else 0, UTC)


def id_in(text: str) -> int | None:
    """Return the id of a dead letter that a form or a command names, if it may be one.

    Databases take no larger one.
    """
    is_number = text.isascii() and text.isdecimal() and len(text) <= _ID_DIGITS
    return int(text) if is_number and int(text) < 2**63 else None


def databases() -> Mapping[str, Collection[str]]:
    """Return the brokers whose dead letters are in a database, by its alias.

    Blocks for that of brokers without tables; raises what it raises.
    """
    site = brokers.site
    if site is None:
        return {}
    found = {using: [owner] for using, owner in site.databases.items()}
    for alias, outbox in site.outboxes.items():  # what their servers refused
        if outbox in found or _has_table(outbox):
            found.setdefault(outbox, []).append(alias)
    others = [alias for alias in site.brokers if _is_of_process(site, alias)]
    using = database_of_processes()
    if others and using is not None and (using in found or _has_table(using)):
        there = found.setdefault(using, [])
        there.extend(alias for alias in others if alias not in there)
    return found


def database_of_processes() -> str | None:
    """Return the database for the dead letters of processes, None if there is none."""
    site = brokers.site
    if site is None:
        return None
    return database_of(site.config.dead_letters, site.databases)


def shown_database() -> str | None:
    """Return the alias of the database whose dead letters pages show, if there is one.

    Where several have some, that which a router leads to, or else the first.
    """
    try:
        known = [alias for alias in databases() if _has_table(alias)]
    except Error:  # the pages of others are in another database
        return None
    chosen = router.db_for_read(StoredDeadLetter)
    return chosen if chosen in known else next(iter(known), None)


def _is_of_process(site: Site, alias: str) -> bool:
    """Whether the dead letters of this broker come here from processes."""
    capabilities = site.capabilities[alias]
    return not capabilities.dead_letters or capabilities.moves_dead_letters


def _has_table(using: str) -> bool:
    connection = connections[using]
    if using not in _migrated and connection.vendor in DIALECTS:
        try:
            names = connection.introspection.table_names()
        except AssertionError:  # Django's own, in a test that may not ask this database
            return False
        _migrated.update({using} if TABLE in names else ())
    return using in _migrated


_migrated: Final[set[str]] = set()
"""Aliases of databases in which the table was seen: admin pages ask all the time."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters; what is None leaves none out."""

    broker: str | None = None
    consumer: str | None = None
    event: Pattern | None = None
    error: str | None = None
    """A part of class and text of the error, whatever its case."""
    since: float | None = None
    """Given up at that time or later, in seconds since 1970."""

    def __bool__(self) -> bool:
        """Whether it leaves any out."""
        return self != Choice()

    def rows(self, using: str) -> QuerySet[StoredDeadLetter]:
        """Return those of a database."""
        wanted = Q()
        if self.broker is not None:
            # The tables of a broker are its own, whatever its alias was.
            is_owner = brokers.site and brokers.site.databases.get(using) == self.broker
            ours = Q(event_id__isnull=False)
            wanted &= ours if is_owner else ~ours & Q(broker=self.broker)
        if self.consumer is not None:
            wanted &= Q(consumer=self.consumer)
        if self.event is not None and self.event.is_exact:
            wanted &= Q(type=self.event.text)
        elif self.event is not None:
            wanted &= Q(type__startswith=self.event.prefix)
        if self.error is not None:
            wanted &= Q(error__icontains=self.error)
        if self.since is not None:
            wanted &= Q(failed__gte=self.since)
        return StoredDeadLetter.objects.using(using).filter(wanted)


class Fault(msgspec.Struct, kw_only=True):
    """Dead letters of one consumer whose errors differ in numbers only."""

    consumer: str
    fault: str
    count: int
    first: float
    """When the first of them was given up, in seconds since 1970."""
    last: float
    example: int
    """The id of a late one."""


def by_fault(rows: QuerySet[StoredDeadLetter]) -> list[Fault]:
    """Return what is behind dead letters, the most frequent first."""
    found: dict[tuple[str, str], Fault] = {}
    errors = rows.order_by().values_list("consumer", "error")
    counted = errors.annotate(Count("id"), Min("failed"), Max("failed"), Max("id"))
    for consumer, error, count, first, last, example in counted.iterator():
        name = consumer, fault_of(error)
        group = found.setdefault(
            name,
            Fault(
                consumer=consumer,
                fault=name[1],
                count=0,
                first=first,
                last=last,
                example=example,
            ),
        )
        group.count += count
        group.first, group.last = min(group.first, first), max(group.last, last)
        group.example = max(group.example, example)
    return sorted(
        found.values(), key=lambda group: (-group.count, group.consumer, group.fault)
    )


def steps(
    rows: QuerySet[StoredDeadLetter], most: int | None = None
) -> Iterator[list[int]]:
    """Yield the ids of dead letters, oldest first, up to ``most``, in small lists.

    Those that come while it runs are left out: what is replayed may fail again.
    """
    last = rows.aggregate(Max("id"))["id__max"]
    after, left = 0, last if most is None else most
    while last is not None and left > 0:
        several = rows.filter(id__gt=after, id__lte=last).order_by("id")
        ids = list(several.values_list("id", flat=True)[: min(MAX_STEP, left)])
        if not ids:
            return
        yield ids
        after, left = ids[-1], left - len(ids)


def replay(using: str, ids: Iterable[int]) -> list[int]:
    """Hand dead letters to their consumers again; return those that were.

    Of what was in the memory of a process, that is asked of the processes which run the
    consumers, by the commit; ``still_wanted`` says what none of them has taken so far.
    One whose consumer is not recorded, or not in the code, stays. In one transaction of
    Django's connection, or in that which is open. What came from a server goes there,
    before the commit: it may come twice, and is not lost. Blocks; raises what the
    database raises, and BackendUnavailableError where a server does not answer.
    """
    dialect, numbers = DIALECTS[connections[using].vendor], list(ids)

    def step(cursor: CursorWrapper) -> list[int]:
        replayed = table.replay(cursor, dialect, numbers)
        replayed += relay.replay(cursor, dialect, numbers)
        replayed += _hand_on(cursor, using, set(numbers).difference(replayed))
        return replayed + _ask_processes(using, set(numbers).difference(replayed))

    return _run(using, step)


_COLUMNS: Final = (
    *("id", "broker", "consumer", "attempt", "error_type", "error", "traceback"),
    *("trace_id", "first_failed", "failed", "type", "envelope"),
)
"""As ``table.read`` takes them."""


def _hand_on(cursor: CursorWrapper, using: str, ids: Collection[int]) -> list[int]:
    """Hand those of brokers with a server to that, and return which it took."""
    site, handed = brokers.site, list[int]()
    aliases = [
        alias
        for alias, capabilities in (site.capabilities if site else {}).items()
        if capabilities.moves_dead_letters and is_live()
    ]
    ours = StoredDeadLetter.objects.using(using).filter(
        pk__in=ids, event_id=None, broker__in=aliases
    )
    # A write first: it holds them against another who does the same.
    if not (ids and aliases and ours.update(attempt=F("attempt"))):
        return []
    for alias in aliases:
        found = ours.filter(broker=alias).order_by("id").values_list(*_COLUMNS)
        letters = [table.read(row) for row in found]
        taken = brokers[alias].server_letters.hand_again(letters)
        handed += table.discard(
            cursor, table.numbers_of([letter.id for letter in taken])
        )
    return handed


def _ask_processes(using: str, ids: Collection[int]) -> list[int]:
    """Have those replayed that processes can; return which these are."""
    asked = StoredDeadLetter.objects.using(using).filter(pk__in=ids, event_id=None)
    # A write first, as on SQLite nobody may write after a look.
    if not ids or not asked.update(replay_wanted=True):
        return []
    found = list(asked.values_list("id", "broker", "consumer"))
    wanted = [id_ for id_, broker, consumer in found if _runs(broker, consumer)]
    asked.exclude(pk__in=wanted).update(replay_wanted=False)
    for alias in {broker for id_, broker, _ in found if id_ in wanted}:
        transaction.on_commit(partial(_look, alias), using=using, robust=True)
    return wanted


def _runs(alias: str, consumer: str) -> bool:
    """Whether processes of this site can hand it to the consumer."""
    site = brokers.site
    if site is None or alias not in site.brokers or not _is_of_process(site, alias):
        return False
    is_here = any(
        candidate.name == consumer for candidate in site.brokers[alias].consumers
    )
    return is_here and not site.capabilities[alias].settles


def _look(alias: str) -> None:
    """Have this process take them at once, if its consumers run here."""
    if is_live():
        brokers[alias].look_for_replays()


def still_wanted(using: str, ids: Collection[int]) -> list[int]:
    """Return those of these that wait for a process to take them. Blocks."""
    rows = StoredDeadLetter.objects.using(using).filter(replay_wanted=True)
    listed, found = sorted(ids), list[int]()
    for start in range(0, len(listed), MAX_STEP):
        several = rows.filter(pk__in=listed[start : start + MAX_STEP])
        found += several.values_list("id", flat=True)
    return found


def discard(using: str, ids: Iterable[int]) -> list[int]:
    """Delete dead letters, as ``replay`` does; return those that were there."""
    return _run(using, lambda cursor: table.discard(cursor, ids))


def _run(using: str, step: Callable[[CursorWrapper], list[int]]) -> list[int]:
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        return step(cursor)
