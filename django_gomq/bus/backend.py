"""The contract of a backend: it stores messages, hands them out and settles them.

Everything else is the bus's, written once for all backends: the reader's thread and its
back-off, room, leases and their heartbeat, permits, counts, retries where the server
has no delayed ones, dead letters where it keeps none, and the batching of settlements.
docs/backends.md says how to write one; ``django_gomq.testing.conformance`` tests it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, Final, Protocol

import msgspec

from .channels.subscription import Subscription
from .consumer import Consumer
from .dead_letters import DeadLetter
from .delivery import Delivery, Outcome
from .errors import ConfigurationError, MessageError, PublishError
from .hooks import Hooks
from .message import DEFAULT_PRIORITY, Message
from .patterns import Pattern
from .process.timers import Timers
from .stats import QueueStats, ServerSample
from .wire import WireMessage

REPLAYED: Final = "gomq-replayed"
"""The header of a message that was replayed from kept history."""
POLL_SECONDS: Final = 0.1
"""How often a backend is asked that has no ``wait`` of its own."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend promises; the bus, its checks and the suite read this."""

    durable: bool = False
    """Messages survive the process, which may then publish and run no consumer."""
    ordered_by_key: bool = False
    priority: bool = False
    max_delay: float | None = 0.0
    """The longest delay in seconds; 0: none, None: any."""
    replay: bool = False
    """A new consumer may start at kept history, and ``setup`` renames by aliases."""
    transactional: bool = False
    """``publish_in_transaction`` writes into an open transaction of the database."""
    idempotent: bool = False
    """``note_handled`` notes what is handled in the transaction of its handler."""
    delayed_retry: bool = False
    """The server brings a retry again after its delay; else it waits in the process."""
    dead_letters: bool = False
    """The server keeps dead letters; else the process keeps the latest."""
    moves_dead_letters: bool = False
    """Until they are moved into a store, if there is one: a ``DeadLetterSource``."""
    lease: float | None = None
    """Seconds after which others get a delivery that was not extended; None: never."""
    counts_deliveries: bool = False
    """The server counts how often it handed a message out, so that one that kills its
    processes is a dead letter after ``max_deliveries`` times."""
    max_deliveries: int = 20
    uncounted_release: bool = True
    """What is given back unstarted does not count in ``Delivery.deliveries``."""
    desired_state: bool = False
    """``desire`` keeps how consumers are to be; else a table of the site does."""
    settles: bool = True
    """Somebody has to be told how a delivery ended; memory keeps nothing of it."""

    def check(self, consumer: Consumer) -> None:
        """Raise ConfigurationError if the consumer asks for what is not promised."""
        if consumer.ordered_by_key and not self.ordered_by_key:
            raise ConfigurationError(
                f"Consumer {consumer.name!r}: this backend has no order by key.",
                consumer=consumer.name,
            )
        if consumer.idempotent and not self.idempotent:
            raise ConfigurationError(
                f"Consumer {consumer.name!r}: idempotent needs a broker that notes "
                "what was handled in the transaction of the handler, as "
                "django_gomq.backends.database.DatabaseBackend does: route its events "
                "to one of these, or leave idempotent out.",
                consumer=consumer.name,
            )
        if self.durable and not consumer.is_named:
            raise ConfigurationError(
                f"Consumer {consumer.name!r}: its broker keeps what waits for it under "
                "its name, and this one is made of the function's, which may change: "
                f'write name="{consumer.name}".',
                consumer=consumer.name,
            )
        if not self.replay and consumer.start == "earliest":
            raise ConfigurationError(
                f"Consumer {consumer.name!r}: start='earliest' needs kept history, and "
                "this backend keeps none: it starts now.",
                consumer=consumer.name,
            )
        if self.durable and not self.replay and consumer.aliases:
            raise ConfigurationError(
                f"Consumer {consumer.name!r}: this backend cannot rename consumers, as "
                "aliases asks for.",
                consumer=consumer.name,
            )
        overflow = consumer.overflow
        if self.settles and overflow == "drop_oldest":
            raise ConfigurationError(
                f"Consumer {consumer.name!r}: overflow={overflow!r} is for the memory "
                "backend; others fetch no more than there is room for.",
                consumer=consumer.name,
            )

    def spills(self, consumer: Consumer) -> bool:
        """Whether messages of a consumer are spilled.

        Elsewhere they stay at the server until there is room, which is as good.
        """
        return consumer.overflow == "spill" and not self.settles

    def check_message(self, message: Message[Any], broker: str) -> None:
        """Raise ConfigurationError or MessageError for what is not promised.

        That is a priority, and a delay above ``max_delay``.
        """
        if message.priority != DEFAULT_PRIORITY and not self.priority:
            raise ConfigurationError(
                f"The backend of broker {broker!r} has no priorities: leave priority "
                f"out, or route {message.type!r} to a broker that has them.",
                event=message.type,
                broker=broker,
            )
        longest = self.max_delay
        if longest is not None and message.delay > longest:
            raise MessageError(
                f"{message.type}: a delay of {message.delay:g} s is too long for "
                f"broker {broker!r}, whose backend takes up to {longest:g} s: route it "
                "to a broker on the database or on Redis, which take any, or raise "
                "max_delay in the OPTIONS of this one, if the event may be lost with "
                "the process.",
                event=message.type,
                broker=broker,
            )


class Settled(Enum):
    """A backend's answer to one settlement."""

    DONE = "done"
    """It is settled; its permit may be given back."""
    KEPT = "kept"
    """It could not be stored: it stays here, permit and all, and is offered again."""
    LOST_LEASE = "lost_lease"
    """It had been given to somebody else: this outcome counts for nothing."""


class Settlement(msgspec.Struct, frozen=True):
    """How one delivery ended."""

    consumer: str
    delivery: Delivery
    outcome: Outcome
    dead_letter: DeadLetter | None = None
    """What to keep, where the outcome is a dead letter."""


class Want(msgspec.Struct, frozen=True):
    """How much may be fetched for one consumer."""

    consumer: Consumer
    room: int
    """At most so many deliveries."""
    busy_keys: frozenset[str] = frozenset()
    """Keys of an ordered consumer that are held here: others of them wait anyway."""


class Fetched(msgspec.Struct, frozen=True):
    """What a server handed out for one consumer."""

    consumer: str
    deliveries: Sequence[Delivery]


class HistoryFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events of kept history are meant."""

    patterns: tuple[Pattern, ...] = ()
    """Of event types; none: all."""
    since: float | None = None
    """Made at that time or later, in seconds since 1970."""
    until: float | None = None
    """Made before that time."""

    def has(self, event_type: str) -> bool:
        """Whether events of this type are meant."""
        if not self.patterns:
            return True
        return any(pattern.matches(event_type) for pattern in self.patterns)


class ConsumerState(msgspec.Struct, frozen=True):
    """How an operator wants a consumer to be in every process; None: as it is."""

    paused: bool | None = None
    capacity: int | None = None


class Inbox(Protocol):
    """Where a backend's own threads reach the bus; thread-safe."""

    def accept(
        self, consumer: str, deliveries: Sequence[Delivery]
    ) -> Sequence[Delivery]:
        """Take in what a server pushed; return what found no room. Does not block."""

    def wanted(self, consumer: str) -> int:
        """Return how many deliveries of a consumer are wanted now."""

    def withdraw(
        self, consumer: str, is_lost: Callable[[Delivery], bool], timeout: float
    ) -> list[Delivery]:
        """Forget what was given to somebody else; return what is still in a handler.

        What waits goes at once; what is in a handler is waited for, up to ``timeout``
        seconds. Inside ``fetch`` that holds up the reader, which keeps the leases:
        there a backend with leases waits briefly, and withdraws again at the next call.
        """

    def quarantine(
        self,
        consumer: str,
        raw: bytes,
        error: MessageError,
        token: object,
        message: Message[Any] | None = None,
    ) -> None:
        """Keep, as a dead letter, what cannot be decoded; ``token`` is settled then.

        ``message`` is what could be read of it, where that is an envelope.
        """

    def report(self, error: BaseException) -> None:
        """Tell the observers that something failed that goes on. Does not block."""


class BackendContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend is given of the process it runs in."""

    broker: str
    """Its alias."""
    source: str
    """Who we are on the wire: the ``source`` of CloudEvents."""
    owner: str
    """This start of this process: no other has the same."""
    inbox: Inbox
    timers: Timers
    hooks: Hooks
    may_wait: Callable[[], bool] = lambda: False
    """Whether publishers of this process wait for room without a timeout, too."""


class Backend(ABC):
    """The adapter under a broker; one for each broker and process.

    Its life is ``open``, then publishing, and where consumers run ``fetch`` and
    ``settle``, then ``close``. Publishing, settling and ``stats`` are thread-safe;
    ``announce``, ``fetch``, ``wait``, ``extend`` and ``desired_state`` are called by
    one thread, the reader's. Each may raise any exception: it is reported, and tried
    again.
    """

    name: ClassVar[str]
    """Short, for metrics and spans."""
    capabilities: Capabilities
    """Of the instance: options and vendor decide."""
    kept_dead_letters: int | None = None
    """How many the process keeps where the server keeps none; None: as is set."""
    database: str | None = None
    """The alias of the database whose transactions it writes into, if it does."""
    relays: bool = False
    """Whether it forwards from there to a server what was emitted, where consumers may
    run: also where there are none."""
    forwards_in_order: bool = False
    """Whether ``forward`` takes nothing behind what it did not take; else it is given
    one event of a key at a time."""

    @abstractmethod
    def open(self, context: BackendContext) -> None:
        """Take in what the process offers. No thread starts and no socket opens."""

    def close(self, timeout: float) -> int | None:  # noqa: B027 - may hold nothing
        """Let go of everything within so many seconds; idempotent.

        Returns how many settlements were answered DONE and never reached the server.
        """

    def setup(self, consumers: Sequence[Consumer]) -> list[str]:
        """Declare, or verify, what these consumers need; return what was done."""
        return []

    def check(self, consumers: Sequence[Consumer]) -> list[str]:
        """Return what is wrong with the options and the server, a sentence each.

        That these consumers are not declared there is wrong, too.
        """
        return []

    @abstractmethod
    def publish_many(
        self, messages: Sequence[Message[Any]], timeout: float | None
    ) -> list[PublishError | None]:
        """Take what can be taken, in this order; answer None or the error for each.

        Waits for the server's word up to ``timeout`` seconds, or the backend's own
        limit if that is None. For room it waits where a timeout is given, and where
        ``context.may_wait`` says so: then a full channel holds publishers back, and
        nothing is dropped. Never raises for the server: BackendUnavailableError is what
        was not sent, and PublishUnknownError what was sent and not answered.
        """

    def publish(self, message: Message[Any], timeout: float | None) -> None:
        """Take one message, or raise the PublishError that says why not."""
        (error,) = self.publish_many([message], timeout)
        if error is not None:
            raise error

    def forward(
        self, events: Sequence[WireMessage], timeout: float
    ) -> list[PublishError | None]:
        """Publish events that stood in an outbox; else as ``publish_many``.

        A server that keeps envelopes gets who made each, and in which version.
        """
        return self.publish_many([event.message for event in events], timeout)

    def publish_in_transaction(
        self, messages: Sequence[Message[Any]], using: str
    ) -> None:
        """Write messages into the open transaction of that database alias.

        They exist once it commits, and never did if it is rolled back. Raises what
        the database raises, and ConfigurationError for a database that is not ours.
        """
        raise NotImplementedError

    def announce(self, consumers: Sequence[Consumer]) -> None:  # noqa: B027
        """Take note that this process runs these, from now on. Does not block.

        Called before the first ``fetch``, and again when there are others.
        """

    def note_handled(self, deliveries: Sequence[Delivery]) -> Sequence[bool]:
        """Note, in this thread's open transaction of ``database``, what is handled.

        Answers for each, of one consumer, whether that is for the first time: then its
        handler is called, and the note is committed with what it does. Called on the
        thread of the handler; blocks. Raises RetryLater where another process is at one
        of them, and what the database raises.
        """
        raise NotImplementedError

    def fetch(self, wants: Sequence[Want]) -> Sequence[Fetched]:
        """Take what is ready, up to the room of each consumer; do not wait for it.

        Called about once a second with no wants, too, while nothing is wanted: a client
        that must be served, as it could be asked to give partitions up, is served then.
        A backend whose server pushes calls ``context.inbox.accept`` instead.
        """
        return ()

    def wait(self, timeout: float) -> None:
        """Return when there may be something to fetch, or after so many seconds."""
        time.sleep(min(timeout, POLL_SECONDS))

    def wake(self) -> None:  # noqa: B027 - may poll often enough
        """End a ``wait`` under way: this process has committed something to fetch.

        Thread-safe, does not block.
        """

    @abstractmethod
    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """End deliveries, of many consumers; one answer each, in their order.

        Called by one thread, never on an event loop, with what came together in 10 ms.
        If it raises, each is offered again by itself.
        """

    def extend(self, deliveries: Sequence[Delivery]) -> list[Settled]:
        """Keep the leases of deliveries that are held; DONE or LOST_LEASE for each."""
        return [Settled.DONE] * len(deliveries)

    def release(self, deliveries: Sequence[Delivery]) -> None:  # noqa: B027
        """Give deliveries back that were not started, so that others may have them."""

    def stats(self) -> ServerSample:
        """Return what waits at the server.

        Asked every 15 seconds, on a thread of its own, and rarely where it takes long.
        """
        return ServerSample()

    def queue_stats(self) -> Mapping[str, QueueStats]:
        """Return the numbers of each event type that queues are held for here."""
        return {}

    def dead_letters(self, after: str = "", limit: int = 100) -> list[DeadLetter]:
        """Return dead letters that the server keeps, oldest first, after that id."""
        return []

    def replay(self, ids: Sequence[str]) -> int:
        """Hand these dead letters to their consumers again; return how many."""
        return 0

    def discard(self, ids: Sequence[str]) -> int:
        """Forget these dead letters; return how many there were."""
        return 0

    def replay_history(
        self, consumer: str, kept: HistoryFilter, *, dry_run: bool
    ) -> int:
        """Hand kept events that this consumer wants to it again; return how many.

        They keep their ids and get the header REPLAYED; what waits anyway is left out,
        and ``dry_run`` only counts. Raises ConfigurationError for an unknown consumer.
        """
        return 0

    def prune(self, older_than: float | None) -> int:
        """Forget kept events that nobody waits for; return how many.

        Those that are older than so many seconds, or by its own limit if that is None.
        """
        return 0

    def remove(self, consumer: str, *, discard: bool) -> int:
        """Forget a consumer that ``setup`` declared; return how many waited for it.

        These become dead letters, unless they are discarded. Raises ConfigurationError
        for a consumer that the server does not know.
        """
        return 0

    def desired_state(self) -> Mapping[str, ConsumerState]:
        """Return how operators want consumers to be; asked at a start, and often."""
        return {}

    def desire(self, consumer: str, state: ConsumerState) -> None:
        """Keep how an operator wants a consumer to be, in every process.

        What ``state`` has None for stays as it was wanted. Processes find it by
        ``desired_state``, also those that start later. Thread-safe; blocks for the
        server, and raises what its client raises. Raises ConfigurationError for a
        consumer that the server does not know, and where it keeps no such thing: the
        capability ``desired_state`` says which.
        """
        raise ConfigurationError(
            f"The {self.name} backend keeps no desired state for {consumer!r}.",
            consumer=consumer,
        )

    def make_reader(self) -> Reader | None:
        """Return a reader of its own; None: the bus has one that calls ``fetch``."""
        return None


RunSoon = Callable[[Callable[[], object]], bool]
"""Has an idle handler thread run something short; returns whether there is one."""


class Reader(ABC):
    """What feeds the channels of one broker; thread-safe."""

    @abstractmethod
    def subscribe(self, subscription: Subscription) -> None:
        """Read for this subscription too. Does not block."""

    @abstractmethod
    def start(self, run_soon: RunSoon) -> None:
        """Start reading; idempotent. Raises RuntimeError where no thread can start."""

    @abstractmethod
    def stop_fetching(self) -> None:
        """Take in nothing new; what was taken before still goes to its channels."""

    @abstractmethod
    def stop(self) -> None:
        """End the reader; idempotent, returns within a second."""

    @property
    @abstractmethod
    def is_up(self) -> bool:
        """Whether it runs."""

    @abstractmethod
    def pending(self, seconds: float) -> int:
        """Return how many messages here are still to reach a channel in that time.

        Never asks a server.
        """
