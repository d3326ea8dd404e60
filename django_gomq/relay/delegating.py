"""A backend that leaves everything to another one; what derives from it says the rest.

So a part of the contract can be done otherwise for every server, whatever its backend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from django_gomq.bus.backend import (
    Backend,
    BackendContext,
    ConsumerState,
    Fetched,
    HistoryFilter,
    Reader,
    Settled,
    Settlement,
    Want,
)
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.dead_letters import DeadLetter, DeadLetterSource
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.errors import PublishError
from django_gomq.bus.message import Message
from django_gomq.bus.stats import QueueStats, ServerSample
from django_gomq.bus.wire import WireMessage


class DelegatingBackend(Backend):
    """Passes each call on to the backend that it is given."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._source = cast("DeadLetterSource", backend)  # if it promises to be one
        self.name = backend.name  # type: ignore[misc] # that of the other
        self.capabilities = backend.capabilities
        self.kept_dead_letters = backend.kept_dead_letters
        self.database = backend.database
        self.relays = backend.relays
        self.forwards_in_order = backend.forwards_in_order

    def open(self, context: BackendContext) -> None:
        self._backend.open(context)

    def close(self, timeout: float) -> int | None:
        return self._backend.close(timeout)

    def setup(self, consumers: Sequence[Consumer]) -> list[str]:
        return self._backend.setup(consumers)

    def check(self, consumers: Sequence[Consumer]) -> list[str]:
        return self._backend.check(consumers)

    def publish_many(
        self, messages: Sequence[Message[Any]], timeout: float | None
    ) -> list[PublishError | None]:
        return self._backend.publish_many(messages, timeout)

    def forward(
        self, events: Sequence[WireMessage], timeout: float
    ) -> list[PublishError | None]:
        return self._backend.forward(events, timeout)

    def publish_in_transaction(
        self, messages: Sequence[Message[Any]], using: str
    ) -> None:
        self._backend.publish_in_transaction(messages, using)

    def announce(self, consumers: Sequence[Consumer]) -> None:
        self._backend.announce(consumers)

    def note_handled(self, deliveries: Sequence[Delivery]) -> Sequence[bool]:
        return self._backend.note_handled(deliveries)

    def fetch(self, wants: Sequence[Want]) -> Sequence[Fetched]:
        return self._backend.fetch(wants)

    def wait(self, timeout: float) -> None:
        self._backend.wait(timeout)

    def wake(self) -> None:
        self._backend.wake()

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        return self._backend.settle(settlements)

    def extend(self, deliveries: Sequence[Delivery]) -> list[Settled]:
        return self._backend.extend(deliveries)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        self._backend.release(deliveries)

    def stats(self) -> ServerSample:
        return self._backend.stats()

    def queue_stats(self) -> Mapping[str, QueueStats]:
        return self._backend.queue_stats()

    def dead_letters(self, after: str = "", limit: int = 100) -> list[DeadLetter]:
        return self._backend.dead_letters(after, limit)

    def replay(self, ids: Sequence[str]) -> int:
        return self._backend.replay(ids)

    def discard(self, ids: Sequence[str]) -> int:
        return self._backend.discard(ids)

    def claim_dead_letters(self, seconds: float) -> bool:
        return self._source.claim_dead_letters(seconds)

    def hand_again(self, letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
        return self._source.hand_again(letters)

    def replay_history(
        self, consumer: str, kept: HistoryFilter, *, dry_run: bool
    ) -> int:
        return self._backend.replay_history(consumer, kept, dry_run=dry_run)

    def prune(self, older_than: float | None) -> int:
        return self._backend.prune(older_than)

    def remove(self, consumer: str, *, discard: bool) -> int:
        return self._backend.remove(consumer, discard=discard)

    def desired_state(self) -> Mapping[str, ConsumerState]:
        return self._backend.desired_state()

    def desire(self, consumer: str, state: ConsumerState) -> None:
        self._backend.desire(consumer, state)

    def make_reader(self) -> Reader | None:
        return self._backend.make_reader()
