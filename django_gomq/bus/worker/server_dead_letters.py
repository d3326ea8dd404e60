"""The dead letters of a broker whose server keeps them until a store has them.

What a consumer gave up on is kept at the server in one step with the end of its
delivery. From there it is moved to the store that all brokers of a site share, where
there is one: it is written first, and forgotten at the server then. So none is lost
while the store is away, and one may be there twice where a process dies in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar, cast

from django_gomq.bus.backend import Backend
from django_gomq.bus.dead_letters import (
    LONGEST_PAUSE,
    MAX_LETTERS,
    MAX_WRITTEN,
    SHORTEST_PAUSE,
    DeadLetter,
    DeadLetterSource,
    DeadLetterStore,
    NoStoreError,
    by_pages,
)
from django_gomq.bus.process.clock import Clock

T = TypeVar("T")

MOVE_SECONDS: Final = 60.0
"""For so long one process alone moves them: longer than server and store may take."""


class ServerDeadLetters:
    """What a server keeps, and a store has; thread-safe.

    Every method blocks for both, and raises what they raise but NoStoreError.
    """

    def __init__(
        self,
        broker: str,
        backend: Backend,
        store: DeadLetterStore | None,
        on_failure: Callable[[Exception], object],
    ) -> None:
        """``on_failure`` hears of the first error where all went well so far."""
        self._broker, self._backend = broker, backend
        self._on_failure = on_failure
        moves = backend.capabilities.moves_dead_letters
        self._store = store if moves else None
        self._source = cast("DeadLetterSource", backend)  # else nothing is asked of it
        self._again_at = self._pause = 0.0

    def list(self) -> list[DeadLetter]:
        """Return the latest of the store, and the first of the server.

        Each oldest first: their clocks may differ.
        """
        here = self._backend.dead_letters(limit=MAX_LETTERS)
        stored = self._ask(
            lambda store: store.list(self._broker, MAX_LETTERS), here[:0]
        )
        return [*stored, *here]

    def all(self) -> Iterator[DeadLetter]:
        """Yield those of the store, then those of the server, each oldest first.

        What is moved to the store meanwhile is yielded from there, perhaps once more.
        """
        after = ""
        for letter in by_pages(self._stored):
            after = letter.id
            yield letter
        yield from by_pages(self._backend.dead_letters)
        yield from by_pages(self._stored, after)

    def _stored(self, after: str, limit: int) -> Sequence[DeadLetter]:
        return self._ask(lambda store: store.page(self._broker, after, limit), ())

    def replay(self, ids: Sequence[str]) -> int:
        """Hand these to their consumers again; return how many the server took."""
        replayed = self._backend.replay(ids)
        if replayed == len(ids):
            return replayed
        return replayed + self._ask(
            lambda store: store.hand_on(self._broker, ids, self.hand_again), 0
        )

    def hand_again(self, letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
        """Hand those of the store to their consumers again; return which."""
        return self._source.hand_again(letters)

    def discard(self, ids: Sequence[str]) -> int:
        """Forget these; return how many there were."""
        count = self._backend.discard(ids)
        if count == len(ids):
            return count
        return count + self._ask(lambda store: len(store.take(self._broker, ids)), 0)

    def _ask(self, ask: Callable[[DeadLetterStore], T], otherwise: T) -> T:
        try:
            return otherwise if self._store is None else ask(self._store)
        except NoStoreError:
            return otherwise

    def move(self) -> int:
        """Move what the server keeps into the store; return how many.

        None where there is no store, or another process does it.
        """
        store, backend = self._store, self._backend
        if store is None or not backend.dead_letters(limit=1):
            return 0
        if not self._source.claim_dead_letters(MOVE_SECONDS):
            return 0
        moved, after = 0, ""
        try:
            while letters := backend.dead_letters(after, MAX_WRITTEN):
                # What the store can never keep stays, and keeps no other from it.
                stays = {letter.id for letter in store.keep(letters)}
                ids = [letter.id for letter in letters if letter.id not in stays]
                moved += backend.discard(ids)
                after = letters[-1].id
        except NoStoreError:
            self._again_at = Clock.monotonic() + LONGEST_PAUSE
        finally:
            self._source.claim_dead_letters(0.0)
        return moved

    def move_if_due(self) -> None:
        """Move them, unless that failed a moment ago; raises nothing."""
        if self._store is None or Clock.monotonic() < self._again_at:
            return
        try:
            self.move()
            self._pause = 0.0
        except Exception as error:  # noqa: BLE001 - whatever a client raises
            if not self._pause:
                self._on_failure(error)
            self._pause = min(max(2 * self._pause, SHORTEST_PAUSE), LONGEST_PAUSE)
            self._again_at = Clock.monotonic() + self._pause
