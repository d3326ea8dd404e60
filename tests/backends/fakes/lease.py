"""A backend with leases, delayed retries and dead letters at its server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from django_gomq.bus.backend import (
    Backend,
    BackendContext,
    Capabilities,
    ConsumerState,
    Fetched,
    Settled,
    Settlement,
    Want,
)
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.dead_letters import DeadLetter
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.errors import (
    BackendUnavailableError,
    DecodeError,
    NoConsumerError,
    PublishError,
    PublishUnknownError,
)
from django_gomq.bus.message import Message
from django_gomq.bus.stats import ServerSample
from django_gomq.testing.conformance import Harness
from tests.backends.fakes.lease_server import LeaseServer

LEASE = 0.3


class LeaseBackend(Backend):
    """Everything that the bus knows of is promised, but a transaction and replay."""

    name: ClassVar[str] = "lease"
    capabilities = Capabilities(
        durable=True,
        ordered_by_key=True,
        priority=True,
        max_delay=None,
        delayed_retry=True,
        dead_letters=True,
        counts_deliveries=True,
        lease=LEASE,
    )

    def __init__(self, server: LeaseServer) -> None:
        self._server = server

    def open(self, context: BackendContext) -> None:
        self._context = context
        self._owner = context.owner

    def setup(self, consumers: Sequence[Consumer]) -> list[str]:
        return self._server.register(consumers)

    def publish_many(
        self, messages: Sequence[Message[Any]], timeout: float | None
    ) -> list[PublishError | None]:
        try:
            taken = self._server.put(messages)
        except ConnectionError as error:
            away = BackendUnavailableError(str(error), broker=self._context.broker)
            return [away] * len(messages)
        if self._server.loses_answers:
            return [PublishUnknownError("no answer")] * len(messages)
        return [
            None if found else NoConsumerError("nobody", event=message.type)
            for message, found in zip(messages, taken, strict=True)
        ]

    def fetch(self, wants: Sequence[Want]) -> Sequence[Fetched]:
        return [
            Fetched(want.consumer.name, self._fetch(want.consumer, want.room))
            for want in wants
        ]

    def _fetch(self, consumer: Consumer, room: int) -> list[Delivery]:
        found: list[Delivery] = []
        for row in self._server.claim(consumer, self._owner, room):
            token = row.number, row.deliveries
            if row.message is None:
                error = DecodeError("not JSON")
                self._context.inbox.quarantine(consumer.name, b"\xff", error, token)
                continue
            found.append(
                Delivery(
                    row.message,
                    row.due,
                    row.attempt,
                    token,
                    row.deliveries,
                    first_failed=row.first_failed,
                )
            )
        return found

    def wait(self, timeout: float) -> None:
        self._server.wait(timeout)

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        return self._server.settle(settlements, self._owner)

    def extend(self, deliveries: Sequence[Delivery]) -> list[Settled]:
        return self._server.extend(deliveries, self._owner)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        counts = not self.capabilities.uncounted_release
        self._server.release(deliveries, self._owner, counts=counts)

    def stats(self) -> ServerSample:
        return self._server.stats()

    def dead_letters(self, after: str = "", limit: int = 100) -> list[DeadLetter]:
        return self._server.dead_letters(after, limit)

    def replay(self, ids: Sequence[str]) -> int:
        return self._server.replay(ids)

    def discard(self, ids: Sequence[str]) -> int:
        return self._server.discard(ids)

    def desired_state(self) -> Mapping[str, ConsumerState]:
        with self._server:
            return dict(self._server.desired)


class LeaseHarness(Harness):
    def __init__(self) -> None:
        self.server = LeaseServer(LEASE)

    def make_backend(self) -> Backend:
        return LeaseBackend(self.server)

    def pass_time(self, seconds: float) -> None:
        self.server.pass_time(seconds)

    def stop_server(self) -> None:
        self.server.is_away = True

    def start_server(self) -> None:
        self.server.is_away = False

    @contextmanager
    def lose_answers(self) -> Iterator[None]:
        self.server.loses_answers = True
        yield
        self.server.loses_answers = False

    def put_garbage(self, event_type: str) -> None:
        self.server.put_garbage(event_type)

    def desire(self, consumer: str, state: ConsumerState) -> None:
        self.server.desired[consumer] = state
