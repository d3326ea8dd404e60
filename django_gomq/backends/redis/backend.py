"""The backend on Redis Streams: durable consumers on Redis 7 or Valkey."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Final

from django_gomq.bus.backend import (
    Backend,
    BackendContext,
    Capabilities,
    ConsumerState,
    Fetched,
    HistoryFilter,
    Settled,
    Settlement,
    Want,
)
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.dead_letters import DeadLetter
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.durations import read_seconds
from django_gomq.bus.errors import (
    BackendUnavailableError,
    ConfigurationError,
    PublishError,
)
from django_gomq.bus.message import Message
from django_gomq.bus.stats import ServerSample
from django_gomq.bus.wire import WireMessage

from . import dead_letters, groups, history, upkeep
from .entries import Place, token_of
from .forwarding import Forwarder
from .keys import Keys
from .publishing import Publisher
from .reading import EntriesDeletedError, Reading
from .server import AwayError, IdleConnections, Server, UnansweredError
from .settling import Settling

UPKEEP_SECONDS: Final = 60.0
RELEASE_SECONDS: Final = 1.0
"""The limit of what a stop waits for."""
CALLS_OF_A_STOP: Final = 4
"""So many answers the last of it waits for, one after the other."""


class RedisBackend(Backend):
    """Hands events to any process through streams, a group for each consumer.

    ``url`` is that of redis-py, with user, password and database; ``prefix`` begins the
    names of all keys. ``timeout`` are the seconds within which the server has to
    answer, ``connect_timeout`` those for a connection. ``lease`` are the seconds after
    which others get what a process holds and does not extend, ``max_deliveries`` how
    often that may happen to a message, and ``history`` the seconds for which events are
    kept that all have handled. ``sentinels`` are host and port of each, ``service``
    is the name they know the server by. ``connection`` has more arguments for
    redis-py's connections, such as ``ssl_ca_certs``.
    """

    name: ClassVar[str] = "redis"
    forwards_in_order = True

    def __init__(
        self,
        *,
        url: str,
        prefix: str = "gomq",
        timeout: float | timedelta = 5.0,
        connect_timeout: float | timedelta = 1.0,
        lease: float | timedelta = 30.0,
        max_deliveries: int = 20,
        history: float | timedelta = 0.0,
        sentinels: Sequence[tuple[str, int]] = (),
        service: str = "mymaster",
        connection: Mapping[str, Any] | None = None,
    ) -> None:
        lease = read_seconds("lease", lease, least=0.1)
        is_count = type(max_deliveries) is int and max_deliveries >= 1
        _check("max_deliveries", max_deliveries, is_count, "a whole number from 1")
        # Of what may have a password no value is shown.
        _check("url", type(url), isinstance(url, str), "a text as redis://…")
        _check("prefix", prefix, _is_prefix(prefix), "a printable text without braces")
        _check("service", service, isinstance(service, str), "a text")
        _check("sentinels", sentinels, _are_addresses(sentinels), "(host, port) pairs")
        is_mapping = connection is None or isinstance(connection, Mapping)
        _check("connection", type(connection), is_mapping, "a dict")
        self.capabilities = Capabilities(
            durable=True,
            max_delay=None,
            delayed_retry=True,
            dead_letters=True,
            moves_dead_letters=True,
            lease=lease,
            counts_deliveries=True,
            max_deliveries=max_deliveries,
            replay=True,
            desired_state=True,
        )
        self._lease, self._kept_for = lease, read_seconds("history", history)
        self._keys = Keys(f"{{{prefix}}}")
        self._server = Server(
            url,
            sentinels=sentinels,
            service=service,
            connect_timeout=read_seconds(
                "connect_timeout", connect_timeout, least=0.001
            ),
            timeout=read_seconds("timeout", timeout, least=0.001),
            options=connection or {},
        )
        self._connections = IdleConnections(self._server)
        self._held: set[Place] = set()
        self._upkeep_at = time.monotonic() + UPKEEP_SECONDS
        self._trimmed: Mapping[str, int] = {}
        self._is_cut_off_until = 0.0

    def open(self, context: BackendContext) -> None:
        self._context = context
        self._publisher = Publisher(
            self._connections,
            self._keys,
            self._server.timeout,
            context.broker,
            context.source,
        )
        self._forwarder = Forwarder(self._publisher, self._connections, self._keys)
        self._owner = f"{socket.gethostname()}-{context.owner}"
        self._settling = Settling(
            self._connections, self._keys, self._owner, self._held
        )
        self._reading = Reading(
            self._server,
            self._keys,
            context.inbox,
            self._owner,
            self._lease,
            self._held,
            self._settling.set_aside,
        )

    def close(self, timeout: float) -> None:
        self._reading.close()
        if self._reading.has_read and time.monotonic() > self._is_cut_off_until:
            try:
                self._leave(timeout / CALLS_OF_A_STOP)
            except Exception as error:  # noqa: BLE001 - others will find it dead
                self._context.inbox.report(error)
        self._connections.close()

    def _leave(self, limit: float) -> None:
        """Give back what came while nobody read any more, and take our name along."""
        with self._connections.borrow() as connection:
            self._settling.release(self._reading.unseen(connection, limit), limit)
            upkeep.leave(connection, self._keys, self._owner, limit)

    def setup(self, consumers: Sequence[Consumer]) -> list[str]:
        with self._connections.borrow() as connection:
            return groups.set_up(connection, self._keys, consumers)

    def check(self, consumers: Sequence[Consumer]) -> list[str]:
        with self._connections.borrow() as connection:
            return groups.problems(connection, self._keys, consumers)

    # ------------------------------------------------------------ publishing

    def publish(self, message: Message[Any], timeout: float | None) -> None:
        error = self._publisher.publish_one(message, timeout)
        if error is not None:
            raise error

    def publish_many(
        self, messages: Sequence[Message[Any]], timeout: float | None
    ) -> list[PublishError | None]:
        return self._publisher.publish(messages, timeout)

    def forward(
        self, events: Sequence[WireMessage], timeout: float
    ) -> list[PublishError | None]:
        return self._forwarder.forward(events, timeout)

    # ------------------------------------------------------------ reading

    def fetch(self, wants: Sequence[Want]) -> Sequence[Fetched]:
        if time.monotonic() >= self._upkeep_at:
            self._upkeep_at = time.monotonic() + UPKEEP_SECONDS
            self._keep_house()
        return self._reading.fetch(wants)

    def _keep_house(self) -> None:
        connection, keys = self._reading.connection, self._keys
        streams = self._reading.streams
        upkeep.trim(connection, streams, self._kept_for)
        upkeep.forget_dead(connection, keys, self._lease)

    def wait(self, timeout: float) -> None:
        self._reading.wait(timeout)

    # ------------------------------------------------------------ settling

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        answers, errors = self._settling.settle(settlements)
        for error in errors[:1]:
            self._context.inbox.report(error)
        return answers

    def extend(self, deliveries: Sequence[Delivery]) -> list[Settled]:
        return self._settling.extend(self._reading.connection, deliveries)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        now = time.monotonic()
        if now < self._is_cut_off_until:
            raise AwayError("the server did not answer: their leases have to end")
        try:
            tokens = [token_of(delivery) for delivery in deliveries]
            self._settling.release(tokens, RELEASE_SECONDS / 2)
        except (AwayError, UnansweredError):
            # A stop gives back for one consumer after the other.
            self._is_cut_off_until = time.monotonic() + RELEASE_SECONDS
            self._reading.recover()  # nobody else takes them from a process that lives
            raise

    # ------------------------------------------------------------ operators

    def desired_state(self) -> Mapping[str, ConsumerState]:
        with self._connections.borrow() as connection:
            return groups.desired(connection, self._keys)

    def desire(self, consumer: str, state: ConsumerState) -> None:
        with self._connections.borrow() as connection:
            groups.desire(connection, self._keys, consumer, state)

    def stats(self) -> ServerSample:
        with self._connections.borrow() as connection:
            found, trimmed = upkeep.sample(connection, self._keys, self._lease)
        for name, count in trimmed.items():
            if count > self._trimmed.get(name, 0):
                self._context.inbox.report(
                    EntriesDeletedError(
                        f"{count} entries were trimmed at the server that {name} had "
                        "not read."
                    )
                )
        self._trimmed = trimmed
        return found

    def dead_letters(self, after: str = "", limit: int = 100) -> list[DeadLetter]:
        with self._connections.borrow() as connection:
            return dead_letters.listed(connection, self._keys, after, limit)

    def replay(self, ids: Sequence[str]) -> int:
        with self._connections.borrow() as connection:
            return dead_letters.replay(connection, self._keys, ids)

    def discard(self, ids: Sequence[str]) -> int:
        with self._connections.borrow() as connection:
            return dead_letters.discard(connection, self._keys, ids)

    def claim_dead_letters(self, seconds: float) -> bool:
        with self._connections.borrow() as connection:
            return dead_letters.claim(connection, self._keys, self._owner, seconds)

    def hand_again(self, letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
        broker, source = self._context.broker, self._context.source
        try:
            with self._connections.borrow() as connection:
                return dead_letters.hand_again(connection, self._keys, letters, source)
        except (AwayError, UnansweredError) as error:
            text = f"Redis: {error}"
            raise BackendUnavailableError(text, broker=broker) from error

    def replay_history(
        self, consumer: str, kept: HistoryFilter, *, dry_run: bool
    ) -> int:
        keys, broker = self._keys, self._context.broker
        with self._connections.borrow() as connection:
            streams = history.find(connection, keys, consumer, broker)
            return history.replay(
                connection, keys, consumer, streams, kept, dry=dry_run
            )

    def remove(self, consumer: str, *, discard: bool) -> int:
        keys, broker = self._keys, self._context.broker
        with self._connections.borrow() as connection:
            streams = history.find(connection, keys, consumer, broker)
            buried_at = None if discard else broker
            return history.remove(connection, keys, consumer, streams, buried_at)

    def prune(self, older_than: float | None) -> int:
        seconds = self._kept_for if older_than is None else older_than
        with self._connections.borrow() as connection:
            streams = upkeep.streams_by_consumer(connection, self._keys).values()
            every = dict.fromkeys(stream for each in streams for stream in each)
            return upkeep.trim(connection, list(every), seconds)


def _check(option: str, value: object, is_right: object, wanted: str) -> None:
    if not is_right:
        raise ConfigurationError(f"{option} is {value!r:.120}, not {wanted}.")


def _is_prefix(prefix: object) -> bool:
    is_text = isinstance(prefix, str) and prefix.isprintable()
    return is_text and bool(prefix) and not set(str(prefix)) & set("{}")


def _are_addresses(sentinels: object) -> bool:
    return isinstance(sentinels, list | tuple) and all(
        isinstance(address, list | tuple)
        and [type(part) for part in address] == [str, int]
        for address in sentinels
    )
