"""Messages that consumers gave up on, and who keeps those that no server keeps.

A process keeps the latest of them. Where there is a store, such as a table, they wait
there only until the housekeeping thread has written them to it.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from operator import attrgetter
from threading import Lock
from typing import Any, Final, Protocol

import msgspec

from .delivery import Delivery
from .errors import describe_error, error_class_name, format_traceback
from .message import Message
from .process.clock import Clock
from .process.housekeeping import write_log

logger = logging.getLogger("gomq.dead_letters")

MAX_LETTERS: Final = 1000  # by a process, where the server keeps none
PAGE: Final = 100
"""Dead letters that are read at once where all are: each has its message."""
MAX_WRITTEN: Final = 100
"""Dead letters that are written at once: log lines wait for it."""
MAX_TAKEN: Final = 500
"""Dead letters of one consumer that are replayed at once."""
LOOK_SECONDS: Final = 5.0
"""How often a process looks for replays that others want, while there are letters."""
SHORTEST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
"""Seconds for which a store that failed, or is not there, is left alone."""

_next_number: Final = itertools.count(1).__next__
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
# UUIDs and addresses first: their letters belong to the number.
_NUMBER: Final = re.compile(
    r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|0x[0-9a-fA-F]+"
    r"|\d+(?:[.,]\d+)*"
)


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that a consumer gave up on."""

    id: str
    """Stable, to replay or discard it; later ones sort behind it."""
    message: Message[Any]
    broker: str
    consumer: str
    attempt: int
    """The last one; they count from 1."""
    error_type: str
    """Class of the last error, bounded."""
    error: str
    """Class and text of the last error, bounded; never the payload."""
    traceback: str = ""
    """Of the last error, bounded."""
    trace_id: str = ""
    """Of the trace in which it was emitted, or empty."""
    first_failed: float
    """When its first attempt failed, in seconds since 1970."""
    time: float
    """When the last one failed and it was given up, in seconds since 1970."""

    def __repr__(self) -> str:
        """Name the message and its error, never its data."""
        return f"<DeadLetter {self.id} {self.consumer} {self.message!r}: {self.error}>"


def fault_of(error: str) -> str:
    """Return class and text of an error with its numbers masked: those of a kind."""
    return _NUMBER.sub("#", error)


def trace_id_of(message: Message[Any]) -> str:
    """Return the id of the trace that a message carries, or an empty text."""
    carried = message.trace_context
    headers = message.headers if carried is None else carried.write(message.headers)
    found = _TRACEPARENT.match(headers.get("traceparent", ""))
    return found[1] if found else ""


def make_dead_letter(
    broker: str, consumer: str, delivery: Delivery, error: BaseException
) -> DeadLetter:
    """Return what is kept of a delivery that ended with this error; never raises."""
    now = time.time()
    return DeadLetter(
        id=f"{os.getpid():08x}-{_next_number():012x}",
        message=delivery.message,
        broker=broker,
        consumer=consumer,
        attempt=delivery.attempt,
        error_type=error_class_name(error),
        error=describe_error(error),
        traceback=format_traceback(error),
        trace_id=trace_id_of(delivery.message),
        first_failed=now if delivery.first_failed is None else delivery.first_failed,
        time=now,
    )


class DeadLetterRing:
    """The latest dead letters of one broker in one process; thread-safe."""

    def __init__(self, size: int = MAX_LETTERS) -> None:
        self._size = size
        self._lock = Lock()
        self._letters: dict[str, DeadLetter] = {}
        self.forgotten = 0
        """How many there were room for no more."""

    def add(self, letter: DeadLetter) -> None:
        """Keep one more, and forget the oldest where there are too many."""
        with self._lock:
            self._letters[letter.id] = letter
            self._forget_oldest()

    def put_back(self, letters: Sequence[DeadLetter]) -> None:
        """Keep those that were taken again, as the oldest."""
        with self._lock:
            self._letters = {letter.id: letter for letter in letters} | self._letters
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        while len(self._letters) > self._size:
            del self._letters[next(iter(self._letters))]
            self.forgotten += 1

    def list(self, after: str = "", limit: int | None = None) -> list[DeadLetter]:
        """Return them, oldest first, from the one behind that id."""
        with self._lock:
            found = [letter for letter in self._letters.values() if letter.id > after]
        # Threads that race add them in another order than they made them in.
        return sorted(found, key=attrgetter("id"))[:limit]

    def take(self, ids: Iterable[str]) -> Sequence[DeadLetter]:
        """Remove and return those of these that are still kept."""
        with self._lock:
            found = [self._letters.pop(name, None) for name in ids]
        return [letter for letter in found if letter is not None]

    def take_first(self, most: int) -> Sequence[DeadLetter]:
        """Remove and return the oldest, up to so many."""
        with self._lock:
            ids = list(itertools.islice(self._letters, most))
            return [self._letters.pop(name) for name in ids]

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._letters)


class NoStoreError(Exception):
    """There is no store yet, as its table is not migrated: no failure to tell of."""


HandOn = Callable[[Sequence[DeadLetter]], Sequence[DeadLetter]]
"""Hands dead letters to a server, and returns those that it took."""


class DeadLetterStore(Protocol):
    """Keeps dead letters of brokers whose server keeps none, for all processes.

    Thread-safe. Every method blocks, and raises NoStoreError, or what its client does.
    Its ids differ from those that a process gives.
    """

    def keep(self, letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
        """Keep these, or none where it raises; return those that it can never keep."""

    def list(self, broker: str, limit: int) -> list[DeadLetter]:
        """Return the latest of a broker, up to so many, oldest first."""

    def page(self, broker: str, after: str, limit: int) -> Sequence[DeadLetter]:
        """Return the next of a broker behind that id, up to so many, oldest first."""

    def wanted(self, broker: str) -> Sequence[str] | None:
        """Return the consumers for which somebody wants a replay.

        None where nothing of this broker is kept, so that nobody need ask again.
        """

    def take_wanted(
        self, broker: str, consumer: str, most: int
    ) -> Sequence[DeadLetter]:
        """Remove and return the oldest of those; nobody else gets them."""

    def find(self, broker: str, ids: Sequence[str]) -> Sequence[tuple[str, str]]:
        """Return the ids of these that it keeps, each with its consumer."""

    def take(self, broker: str, ids: Sequence[str]) -> Sequence[DeadLetter]:
        """Remove and return those of these that it keeps; nobody else gets them."""

    def hand_on(self, broker: str, ids: Sequence[str], hand: HandOn) -> int:
        """Have those of these handed on that it keeps, and forget what was taken.

        Returns how many. What ``hand`` raises is raised, and all are kept then.
        """


def by_pages(
    read: Callable[[str, int], Sequence[DeadLetter]], after: str = ""
) -> Iterator[DeadLetter]:
    """Yield all behind that id; ``read`` returns the next behind one, up to so many.

    What was yielded may be deleted before the next page is read.
    """
    while page := read(after, PAGE):
        yield from page
        after = page[-1].id


class DeadLetterSource(Protocol):
    """A backend whose server keeps dead letters until they are in a store.

    Beside what every backend has for those of its server. Thread-safe; blocks.
    """

    def claim_dead_letters(self, seconds: float) -> bool:
        """Have this process alone move dead letters, for so long; 0 lets go of them.

        Returns False where another process has claimed them.
        """

    def hand_again(self, letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
        """Hand these, which a store keeps, to their consumers again.

        Returns those that the server took: it knows the consumers of no others. Raises
        BackendUnavailableError where the server does not answer: it may have some.
        """


class Keeping(msgspec.Struct, frozen=True, kw_only=True):
    """How dead letters are kept that no server keeps."""

    most: int | None = None
    """So many by a process, unless the backend says; None: ``KEPT``."""
    store: DeadLetterStore | None = None
    """Where they are kept for all processes; None: nowhere."""


Take = Callable[[int], Sequence[DeadLetter]]
"""Takes up to so many dead letters from where they are kept."""
Admit = Callable[[str, int, Take], int]
"""Has up to so many taken as a consumer has room for, and handles them again."""


class DeadLetterKeeper:
    """Keeps the dead letters of one broker, and gives them to consumers again.

    Belongs to one process. Thread-safe; ``list``, ``replay`` and ``discard`` block for
    the store, and raise what it raises, other than NoStoreError.
    """

    def __init__(
        self,
        broker: str,
        size: int,
        *,
        admit: Admit,
        store: DeadLetterStore | None,
        hand_over: Callable[[Callable[[], object]], bool],
        flush: Callable[[], object],
        on_failure: Callable[[Exception], object],
    ) -> None:
        """``hand_over`` has a call run on the housekeeping thread; ``flush`` waits.

        ``on_failure`` hears of the first error of a store that worked so far.
        """
        self._broker = broker
        self._size = size
        self._store = store
        self._admit = admit
        self._hand_over = hand_over
        self._flush = flush
        self._on_failure = on_failure
        self._kept = DeadLetterRing(size)
        self._waiting = DeadLetterRing(size)
        """Those to be written to the store."""
        self._begun = self._is_writing = False
        self._write_at = self._look_at = 0.0
        self._may_be_wanted = True
        """Whether the store may have some that others want to be replayed."""
        self._pause = 0.0
        """Seconds that the store was left alone for the last time; 0: it works."""
        self._told_forgotten = 0

    def keep(self, letter: DeadLetter) -> None:
        """Keep one more; does not block."""
        if self._store is None:
            self._kept.add(letter)
            return
        self._waiting.add(letter)
        if Clock.monotonic() >= self._write_at:
            self._begin()

    def look(self) -> None:
        """Have replays looked for soon that others want; does not block."""
        if self._store is not None:
            self._may_be_wanted, self._look_at = True, 0.0
            self._begin()

    def tick(self) -> None:
        """Do what is due; called every second. Does not block."""
        now = Clock.monotonic()
        if (self._waiting and now >= self._write_at) or self._is_to_look(now):
            self._begin()

    def finish(self) -> None:
        """Have all that waits written now, if the store can be reached."""
        # What is being written may come back.
        if self._is_writing or self._waiting or self._is_writing:
            self._hand_over(self._write_all)

    def _is_to_look(self, now: float) -> bool:
        return self._may_be_wanted and now >= self._look_at

    def _begin(self) -> None:
        if self._store is not None and not self._begun:
            # Two at once do no harm; the next tick sees to one that found no room.
            self._begun = True
            if not self._hand_over(self._run):
                self._begun = False

    # ------------------------------------------------------------ housekeeping

    def _run(self) -> None:
        """Write some, and look for replays; on the housekeeping thread."""
        self._begun = False
        if self._write_some() and self._waiting:
            self._begin()  # behind the log lines that wait for us
        if self._is_to_look(Clock.monotonic()):
            self._look()

    def _write_all(self) -> None:
        while self._waiting and self._write_some():
            pass

    def _write_some(self) -> bool:
        """Write the oldest that wait; return whether it is worth to go on."""
        assert self._store is not None  # noqa: S101 - else nothing begins
        self._is_writing = True
        letters = self._waiting.take_first(MAX_WRITTEN)
        try:
            refused = self._store.keep(letters) if letters else ()
        except Exception as error:  # noqa: BLE001 - whatever a client raises
            self._waiting.put_back(letters)
            self._leave_alone(error)
            return False
        except BaseException:
            self._waiting.put_back(letters)
            raise
        finally:
            self._is_writing = False
        if not letters:
            return True
        for letter in refused:
            self._kept.add(letter)
        self._pause, self._may_be_wanted = 0.0, True
        if not self._waiting:
            self._tell_forgotten()
        return True

    def _leave_alone(self, error: Exception) -> None:
        if isinstance(error, NoStoreError):
            self._pause = LONGEST_PAUSE
        else:
            if not self._pause:
                self._on_failure(error)
            self._pause = min(max(2 * self._pause, SHORTEST_PAUSE), LONGEST_PAUSE)
        self._write_at = Clock.monotonic() + self._pause

    def _tell_forgotten(self) -> None:
        count = self._waiting.forgotten - self._told_forgotten
        self._told_forgotten += count
        if count:
            write_log(
                logger,
                logging.WARNING,
                "Broker %s forgot its %d oldest dead letters before they could be "
                "written: a process keeps %d that wait for that",
                self._broker,
                count,
                self._size,
                fields={"gomq_broker": self._broker, "gomq_count": count},
            )

    def _look(self) -> None:
        assert self._store is not None  # noqa: S101 - else nothing begins
        self._look_at = Clock.monotonic() + LONGEST_PAUSE
        try:
            wanted = self._store.wanted(self._broker)
            taken = sum(map(self._replay_wanted, wanted or ()))
        except NoStoreError:
            self._may_be_wanted = False
            return
        except Exception:  # noqa: BLE001 - who writes tells of it
            return
        self._may_be_wanted = wanted is not None
        # Where room made them fewer than there were, more may have come.
        pause = 0.0 if taken >= MAX_TAKEN else LOOK_SECONDS
        self._look_at = Clock.monotonic() + pause

    def _replay_wanted(self, consumer: str) -> int:
        assert self._store is not None  # noqa: S101 - else nothing begins
        take = partial(self._store.take_wanted, self._broker, consumer)
        return self._admit(consumer, MAX_TAKEN, take)

    # ------------------------------------------------------------ operators

    def list(self) -> list[DeadLetter]:
        """Return those of the store, then those that are here, each oldest first.

        Their times say nothing of their order: those of the store are by its clock.
        """
        if self._store is None:
            return self._kept.list()
        self._flush()
        try:
            stored = self._store.list(self._broker, MAX_LETTERS)
        except NoStoreError:
            stored = []
        here = [*self._kept.list(), *self._waiting.list()]
        return [*stored, *sorted(here, key=attrgetter("time", "id"))]

    def all(self) -> Iterator[DeadLetter]:
        """Yield those of the store, then those that are here, each oldest first."""
        if self._store is None:
            yield from self._kept.list()
            return
        self._flush()
        # Before: what is written meanwhile comes twice, and else might not come.
        here = [*self._kept.list(), *self._waiting.list()]
        with suppress(NoStoreError):
            yield from by_pages(partial(self._store.page, self._broker))
        yield from here

    def replay(self, ids: Sequence[str]) -> int:
        """Give these to their consumers again; return how many found room."""
        replayed, asked = 0, set(ids)
        for ring in (self._kept, self._waiting):
            found = [
                (letter.id, letter.consumer)
                for letter in ring.list()
                if letter.id in asked
            ]
            replayed += self._replay_found(found, ring.take)
        if self._store is not None and replayed < len(ids):
            take = partial(self._store.take, self._broker)
            try:
                found = list(self._store.find(self._broker, ids))
                replayed += self._replay_found(found, take)
            except NoStoreError:
                pass
        return replayed

    def _replay_found(
        self,
        found: Iterable[tuple[str, str]],
        take: Callable[[Sequence[str]], Sequence[DeadLetter]],
    ) -> int:
        by_consumer = defaultdict(list)
        for name, consumer in found:
            by_consumer[consumer].append(name)
        return sum(
            self._admit(consumer, len(ids), partial(_take_first, take, ids))
            for consumer, ids in by_consumer.items()
        )

    def discard(self, ids: Sequence[str]) -> int:
        """Forget these; return how many there were."""
        count = len(self._kept.take(ids)) + len(self._waiting.take(ids))
        if self._store is not None and count < len(ids):
            try:
                count += len(self._store.take(self._broker, ids))
            except NoStoreError:
                pass
        return count


def _take_first(
    take: Callable[[Sequence[str]], Sequence[DeadLetter]], ids: Sequence[str], room: int
) -> Sequence[DeadLetter]:
    return take(ids[:room])
