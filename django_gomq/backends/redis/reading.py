"""Reads for the consumers of a process: blocks for news, claims, and reads again."""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from django_gomq.bus.backend import Fetched, Inbox, Want
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.patterns import Pattern

from . import groups
from .entries import Place, Token, open_entries, place_of, token_in
from .keys import Keys
from .scripts import CLAIM, LOOK, RECOVER, Command
from .server import Server, ServerConnection, is_lost_group, pending

LOOK_SECONDS: Final = 0.1
"""How often it is looked for what is due, and for new types."""
BLOCK_SECONDS: Final = 1.0
"""For how long the server holds a read for which it has nothing."""
MOST: Final = 200
"""Entries of one stream in one read: a slice that is decoded in milliseconds."""
MOST_CLAIMS: Final = 100
BUSY_SECONDS: Final = 0.005
"""Pause of a reader while some consumer is busy: nobody tells it that it has room."""
CLAIMS: Final = 4
"""So often, within one lease, it is looked for what others have left; at least every
five seconds."""

SetAside = Callable[[ServerConnection, Sequence[tuple[Token, float]]], object]
"""Has entries come again, each in so many seconds."""


class EntriesDeletedError(Exception):
    """Entries that a consumer had not handled were deleted at the server."""


class GroupReader:
    """The reads for one consumer: one at a time, on a connection of their own."""

    def __init__(self, server: Server, consumer: Consumer) -> None:
        self._connection = ServerConnection(server)
        self._timeout = server.timeout
        self.consumer = consumer
        self.streams: Sequence[str] = ()
        self.must_recover = False
        """Whether the server may have given us what we never saw."""
        self.recovered: set[Place] = set()
        """What of that was read again while a read is under way that may bring it."""
        self.asked: float | None = None
        """When it was asked last, if it has not answered."""
        self.read_at = -math.inf
        """When something was read last."""
        self.quiet_until = 0.0
        """Until when it is left alone, after an error of its own."""
        self._busy: Sequence[str] = ()
        self._turn = self._count = self._number = self._first = 0
        self._empty = 0
        """How many streams it has asked since one had something."""

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        """Forget a read that is under way, and read again what it may have brought."""
        self.must_recover |= self.asked is not None
        self.asked = None
        self.recovered.clear()
        self._connection.close()

    def ask(self, owner: str, room: int) -> None:
        """Ask for up to so many entries. Raises AwayError, UnansweredError."""
        self._turn += 1
        streams, seconds = self.streams, BLOCK_SECONDS
        # COUNT is for each stream: those that have much share the room most times.
        if self._busy and self._turn % 4:
            streams, seconds = self._busy, 0.0
        if room < len(streams):
            seconds = min(seconds, self._seconds_for(room))
            first = self._first % len(streams)
            streams = [*streams[first:], *streams[:first]][:room]
            self._first = first + room
        block = ("BLOCK", max(1, int(seconds * 1000))) if seconds else ()
        count = min(MOST, max(1, room // len(streams)))
        group = ("XREADGROUP", "GROUP", self.consumer.name, owner, "COUNT", count)
        self._connection.send(
            (*group, *block, "STREAMS", *streams, *[">"] * len(streams))
        )
        self.asked, self._count = time.monotonic(), count
        self._number = len(streams)

    def _seconds_for(self, room: int) -> float:
        """Return how long to wait where only so many of the streams are asked.

        The others may have something meanwhile. So there is no wait before all had
        nothing, one after the other, and then each waits for its share of the time.
        """
        if self._empty < len(self.streams):
            return 0.0
        return BLOCK_SECONDS * room / len(self.streams)

    def answer(self) -> Any:
        """Return what it was answered, which is there. Raises as ``ask``."""
        assert self.asked is not None  # noqa: S101 - somebody asked
        deadline = time.monotonic() + self._timeout
        (answer,) = self._connection.receive(1, deadline)
        self.asked = None
        if isinstance(answer, ResponseError):
            self.must_recover = True
            return answer
        answer = answer or []
        self._busy = [
            stream.decode() for stream, rows in answer if len(rows) == self._count
        ]
        self._empty = 0 if answer else self._empty + self._number
        if answer:
            self.read_at = time.monotonic()
        return answer

    @property
    def goes_on(self) -> bool:
        """Whether it is to be asked again before what it had is handed over.

        Where some stream had as much as it was asked for, or none had anything.
        """
        return bool(self._busy) or self._empty > 0

    @property
    def is_free(self) -> bool:
        """Whether it may be asked now."""
        is_quiet = time.monotonic() < self.quiet_until
        return self.asked is None and bool(self.streams) and not is_quiet

    @property
    def is_overdue(self) -> bool:
        """Whether the server has not answered in time."""
        asked = self.asked
        return (
            asked is not None
            and time.monotonic() > asked + BLOCK_SECONDS + self._timeout
        )


class Reading:
    """What the thread of the bus's reader does at the server; for that thread alone."""

    def __init__(
        self,
        server: Server,
        keys: Keys,
        inbox: Inbox,
        owner: str,
        lease: float,
        held: set[Place],
        set_aside: SetAside,
    ) -> None:
        self._server, self._keys = server, keys
        self._inbox, self._owner = inbox, owner
        self._lease, self._held, self._set_aside = lease, held, set_aside
        self.connection = ServerConnection(server)
        """For what is answered at once."""
        self.readers: dict[str, GroupReader] = {}
        self._types: Sequence[str] = ()
        self._version: bytes | None = None
        self._ahead = 0.0
        self._look_at = self._beat_at = self._claim_at = 0.0
        self._wanted: frozenset[str] = frozenset()
        self._is_refused = False

    @property
    def has_read(self) -> bool:
        """Whether this process has a name in the groups."""
        return bool(self.readers)

    @property
    def streams(self) -> Sequence[str]:
        """All that is read here."""
        return list(
            dict.fromkeys(
                stream for reader in self.readers.values() for stream in reader.streams
            )
        )

    def close(self) -> None:
        """Close every connection."""
        for reader in self.readers.values():
            reader.close()
        self.connection.close()

    def unseen(self, connection: ServerConnection, limit: float) -> Sequence[Token]:
        """Return what the server has given to this process, which reads no more.

        Blocks up to that many seconds for each of two answers. Raises as
        ``ServerConnection.run``.
        """
        owner = self._owner
        pairs = [
            (reader.consumer.name, stream)
            for reader in self.readers.values()
            for stream in reader.streams
        ]
        asked = [
            ("XPENDING", stream, name, "-", "+", MOST, owner) for name, stream in pairs
        ]
        missed: list[tuple[str, str, Command]] = []
        for (name, stream), rows in zip(
            pairs, connection.ask(asked, limit), strict=True
        ):
            found = [] if isinstance(rows, Exception) else rows
            ids = [row[0] for row in found if (name, stream, row[0]) not in self._held]
            if ids:
                missed.append((name, stream, RECOVER([stream], name, owner, *ids)))
        answers = connection.run(*(each[2] for each in missed), timeout=limit)
        return [
            token_in(name, stream, tuple(row))
            for (name, stream, _), (rows, _) in zip(missed, answers, strict=True)
            for row in rows
        ]

    def recover(self) -> None:
        """Have the next fetch look for what is ours and not held; thread-safe."""
        for reader in list(self.readers.values()):
            reader.must_recover = True

    def fetch(self, wants: Sequence[Want]) -> Sequence[Fetched]:
        """Return what is there now; ask for the rest, which ``wait`` waits for."""
        self._wanted = frozenset(want.consumer.name for want in wants)
        found: dict[str, list[Token]] = {}
        try:
            self._keep_readers(wants)
            self._look()
            for name, tokens in self._tokens(wants):
                found.setdefault(name, []).extend(tokens)
            return [Fetched(name, self._open(name, found[name])) for name in found]
        except BaseException:
            # What was read is not handed out: so it is read again.
            for tokens in found.values():
                self._held.difference_update(map(place_of, tokens))
            self.recover()
            for reader in self.readers.values():
                reader.close()
            self.connection.close()
            raise

    def _tokens(self, wants: Sequence[Want]) -> Iterator[tuple[str, Sequence[Token]]]:
        left = {want.consumer.name: want.room for want in wants}
        for reader in self.readers.values():
            if reader.must_recover:
                again = [(reader.consumer.name, self._recover(reader))]
                yield from _count_off(left, again)
        yield from _count_off(left, self._claim(left))
        self._ask(left)
        yield from _count_off(left, self._answers())
        # The server finds more while we decode what it has found. Where it has no more,
        # what came is handed over first.
        self._ask({name: left[name] for name in left if self.readers[name].goes_on})

    def _ask(self, left: Mapping[str, int]) -> None:
        for name, room in left.items():
            if room > 0 and self.readers[name].is_free:
                self.readers[name].ask(self._owner, room)

    def _open(self, name: str, tokens: Sequence[Token]) -> Sequence[Delivery]:
        consumer, inbox = self.readers[name].consumer, self._inbox
        self._held.update(map(place_of, tokens))
        opened = open_entries(consumer, tokens, self._ahead, inbox)
        if opened.set_aside:
            self._set_aside(self.connection, opened.set_aside)
        return opened.deliveries

    # ------------------------------------------------------------ what to read

    def _keep_readers(self, wants: Sequence[Want]) -> None:
        for want in wants:
            name = want.consumer.name
            if name not in self.readers:
                self.readers[name] = GroupReader(self._server, want.consumer)
                self._version = None  # look at once what there is to read

    def _look(self) -> None:
        """Move what is due, and see what there is to read: both now and then."""
        now = time.monotonic()
        if now < self._look_at and self._version is not None:
            return
        self._look_at = now + LOOK_SECONDS
        beats = now >= self._beat_at
        if beats:
            self._beat_at = now + self._lease / 3
            # A read that the server held when its connection broke may have brought
            # something after the last look, and nobody takes it from a living process.
            self.recover()
        pairs = [
            name for each in self.streams for name in (self._keys.later(each), each)
        ]
        names = [self._keys.version, self._keys.workers, *pairs]
        look = LOOK(names, self._owner, int(beats), MOST_CLAIMS)
        ((version, server_now, left, refused),) = self.connection.run(look)
        self._ahead = time.monotonic() - server_now / 1000
        if refused and not self._is_refused:  # once for each time without memory
            self._inbox.report(ResponseError(refused.decode(errors="replace")))
        if refused or beats:  # which writes each time
            self._is_refused = bool(refused)
        if not left:
            self._look_at = now  # there may be more
        if version != self._version:
            self._see_types()
            self._version = version  # not before: what failed is looked at again

    def _see_types(self) -> None:
        (types,) = self.connection.run(("SMEMBERS", self._keys.types))
        self._types = sorted(each.decode() for each in types)
        for reader in self.readers.values():
            streams = self._streams_of(reader.consumer)
            if streams != reader.streams:
                reader.close()  # it may wait for others
                reader.streams = streams

    def _streams_of(self, consumer: Consumer) -> Sequence[str]:
        patterns = [Pattern(text) for text in consumer.types]
        types = {
            each
            for each in self._types
            if any(pattern.matches(each) for pattern in patterns)
        }
        types |= {pattern.text for pattern in patterns if pattern.is_exact}
        again = self._keys.again(consumer.name)
        return [again, *(self._keys.events(each) for each in sorted(types))]

    # ------------------------------------------------------------ reading

    def _answers(self) -> Iterator[tuple[str, Sequence[Token]]]:
        asked = [reader for reader in self.readers.values() if reader.asked is not None]
        for reader in _readable(asked, 0.0):
            answer = reader.answer()
            if isinstance(answer, ResponseError):
                self._mend(reader, answer)
                continue
            name, twice = reader.consumer.name, reader.recovered
            reader.recovered = set()
            for stream, rows in answer:
                key = stream.decode()
                found = [token_in(name, key, (row[0], 1, row[1])) for row in rows]
                if twice:
                    found = [token for token in found if place_of(token) not in twice]
                yield name, found
        for reader in asked:
            if reader.is_overdue:
                raise TimeoutError("Redis did not answer a read in time.")

    def _mend(self, reader: GroupReader, error: ResponseError) -> None:
        """Make groups again that are lost; leave a consumer that is not set up."""
        reader.quiet_until = time.monotonic() + LOOK_SECONDS
        # A read that waits for a stream that goes is told otherwise than a later one.
        if not (is_lost_group(error) or str(error).startswith("UNBLOCKED")):
            reader.quiet_until += BLOCK_SECONDS
            self._inbox.report(error)
            return
        if groups.restore(self.connection, self._keys, reader.consumer):
            self._version = None
        else:
            reader.must_recover = False  # it has no group
            reader.quiet_until += BLOCK_SECONDS

    def wait(self, timeout: float) -> None:
        """Return when something may have come, or is due to be looked for."""
        pause = min(timeout, max(0.0, self._look_at - time.monotonic()))
        readers = list(self.readers.values())
        since = time.monotonic() - BLOCK_SECONDS
        if any(
            reader.read_at > since and reader.consumer.name not in self._wanted
            for reader in readers
        ):
            pause = min(pause, BUSY_SECONDS)
        asked = [reader for reader in readers if reader.asked is not None]
        if not asked:
            time.sleep(min(pause, LOOK_SECONDS))
            return
        _readable(asked, pause)

    # ------------------------------------------------------------ what was left

    def _recover(self, reader: GroupReader) -> Sequence[Token]:
        """Return what the server has given to this process, and it does not hold."""
        name, owner = reader.consumer.name, self._owner
        found: list[Token] = []
        for stream in reader.streams:
            ids = [
                each
                for each in pending(self.connection, stream, name, owner)
                if (name, stream, each) not in self._held
            ]
            for start in range(0, len(ids), MOST):
                part = ids[start : start + MOST]
                found += self._taken(
                    reader, stream, RECOVER([stream], name, owner, *part)
                )
        reader.must_recover = False
        if reader.asked is not None:
            reader.recovered.update(map(place_of, found))
        return found

    def _claim(self, left: Mapping[str, int]) -> Sequence[tuple[str, Sequence[Token]]]:
        """Take what nobody has extended for a lease, for each consumer."""
        now = time.monotonic()
        if now < self._claim_at:
            return ()
        self._claim_at = now + min(self._lease / CLAIMS, 5.0)
        found: list[tuple[str, Sequence[Token]]] = []
        owner, idle = self._owner, int(self._lease * 1000)
        for name, room in left.items():
            reader, free = self.readers[name], min(room, MOST_CLAIMS)
            for stream in reader.streams if free > 0 else ():
                claim = CLAIM([stream], name, owner, idle, free)
                taken = self._taken(reader, stream, claim)
                found.append((name, taken))
                free -= len(taken)
                if not free:
                    self._claim_at = now  # there may be more
                    break
        return found

    def _taken(
        self, reader: GroupReader, stream: str, claim: Command
    ) -> Sequence[Token]:
        try:
            ((rows, deleted),) = self.connection.run(claim)
        except ResponseError as error:
            if is_lost_group(error):
                return ()
            raise
        name = reader.consumer.name
        if deleted:
            self._inbox.report(
                EntriesDeletedError(
                    f"{deleted} entries of {stream} were deleted at the server before "
                    f"{name} had handled them."
                )
            )
        return [token_in(name, stream, tuple(row)) for row in rows]


def _count_off(
    left: dict[str, int], found: Iterable[tuple[str, Sequence[Token]]]
) -> Iterator[tuple[str, Sequence[Token]]]:
    """Yield what was found, and take it from the room that is left for each."""
    for name, tokens in found:
        if name in left:
            left[name] -= len(tokens)
        yield name, tokens


def _readable(readers: Sequence[GroupReader], timeout: float) -> Sequence[GroupReader]:
    if not readers:
        return ()
    by_number = {reader.fileno(): reader for reader in readers}
    poll = select.poll()
    for number in by_number:
        poll.register(number, select.POLLIN)
    return [by_number[number] for number, _ in poll.poll(math.ceil(timeout * 1000))]
