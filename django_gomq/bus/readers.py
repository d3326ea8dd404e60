"""The bus's reader: fetches from a server, keeps its leases, and feeds the channels."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Condition, Event, Thread, current_thread
from typing import Any, Final

import msgspec

from .backend import Backend, Reader, RunSoon, Settled, Settlement, Want
from .channels.subscription import Subscription
from .counts import OperationTimes
from .dead_letters import DeadLetterStore
from .delivery import Delivery, DeliveryLimitError
from .errors import MessageError
from .hooks import Hooks
from .message import Message
from .process.clock import Clock
from .process.fork import claim_thread
from .stats import ServerSample, ServerStats
from .worker.server_dead_letters import ServerDeadLetters
from .worker.settler import Settler

MAX_WAIT: Final = 0.5  # seconds: a stop waits for no longer than that
SERVE_SECONDS: Final = 1.0  # how often a client is served that has nothing to fetch
STATE_SECONDS: Final = 2.0  # how often the desired state is compared with what is
SAMPLE_SECONDS: Final = 15.0  # how often a server is asked what waits there
SAMPLE_REST: Final = 20  # for how many times as long as an answer took it is left alone
FIRST_BACKOFF: Final = 0.05  # seconds, after a server could not be reached
MAX_BACKOFF: Final = 2.0
UNKNOWN: Final = "_unknown"
"""The event type of what cannot be decoded."""


class HeldDeliveries:
    """What this process holds of a server, for which consumer; thread-safe."""

    def __init__(self) -> None:
        self._lock = self._changed = Condition()
        self._held: dict[Delivery, Subscription] = {}

    def hold(self, deliveries: Iterable[Delivery], subscription: Subscription) -> None:
        """Hold these from now on."""
        with self._lock:
            self._held.update(dict.fromkeys(deliveries, subscription))

    def exchange(self, delivery: Delivery, following: Delivery) -> bool:
        """Hold the second in the place of the first; return whether that was held."""
        with self._lock:
            subscription = self._held.pop(delivery, None)
            if subscription is not None:
                self._held[following] = subscription
            self._changed.notify_all()
            return subscription is not None

    def let_go(self, deliveries: Iterable[Delivery]) -> None:
        """Hold these no more."""
        with self._lock:
            for delivery in deliveries:
                self._held.pop(delivery, None)
            self._changed.notify_all()

    def all(self) -> Mapping[Delivery, Subscription]:
        """Return a copy of what is held."""
        with self._lock:
            return dict(self._held)

    def wait_until_gone(
        self, is_lost: Callable[[Delivery], bool], timeout: float
    ) -> list[Delivery]:
        """Block until nothing like that is held; return what is, after the timeout."""
        until = Clock.monotonic() + timeout
        with self._changed:
            while True:
                left = [delivery for delivery in self._held if is_lost(delivery)]
                pause = until - Clock.monotonic()
                if not left or pause <= 0:
                    return left
                self._changed.wait(pause)


class _Every:
    """When a thing is due that is done every so many seconds; the first at once."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is due."""
        return Clock.monotonic() >= self._due

    def done(self) -> None:
        """Count the next time from now."""
        self._due = Clock.monotonic() + self._seconds

    @property
    def left(self) -> float:
        """Seconds until it is due."""
        return max(0.0, self._due - Clock.monotonic())


class Sampler:
    """Asks a server now and then what waits there, on a thread of its own.

    So neither a fetch nor a lease waits for the answer. ``start`` and ``stop`` are
    idempotent.
    """

    def __init__(
        self,
        backend: Backend,
        report: Callable[[BaseException], object],
        then: Callable[[], object] | None = None,
    ) -> None:
        """``then`` is called after each answer, on the same thread; raises nothing."""
        self.latest = ServerSample()
        """As it was last; it stands still while the server does not answer."""
        self._then = then
        self._backend = backend
        self._report = report
        self._stop: Event | None = None

    def start(self) -> None:
        """Ask from now on. Raises RuntimeError where no thread can start."""
        if self._stop is None:
            stop = Event()
            name = f"gomq-{self._backend.name}-sampler"
            Thread(target=self._run, args=(stop,), name=name, daemon=True).start()
            self._stop = stop

    def stop(self) -> None:
        """Ask no more; does not wait for an answer under way."""
        stop, self._stop = self._stop, None
        if stop is not None:
            stop.set()

    def _run(self, stop: Event) -> None:
        claim_thread()
        is_failing, pause = False, 0.0
        while not stop.wait(pause):
            began = Clock.monotonic()
            try:
                self.latest = _with_gone(self.latest, self._backend.stats())
                is_failing = False
                if self._then is not None:
                    self._then()
            except BaseException as error:  # noqa: BLE001 - whatever a client raises
                if not is_failing and not stop.is_set():  # once for each outage
                    self._report(error)
                is_failing = True
            took = Clock.monotonic() - began
            # Not all processes of a site at one moment.
            pause = max(SAMPLE_SECONDS * random.uniform(0.8, 1.2), SAMPLE_REST * took)


_GONE: Final = ServerStats(
    ready=0, held=0, trimmed=0, scheduled=0, dead=0, oldest_age=0.0, workers=0
)


def _with_gone(before: ServerSample, now: ServerSample) -> ServerSample:
    """Return the sample, and nothing for each consumer that was removed meanwhile.

    A series that went would stay as it was in a directory that processes share.
    """
    gone = dict.fromkeys(before.consumers.keys() - now.consumers.keys(), _GONE)
    return msgspec.structs.replace(now, consumers={**now.consumers, **gone})


class PullReader(Reader):
    """One thread that fetches what the channels want, and keeps the leases of it.

    It is also where a server that pushes hands messages over: the ``Inbox`` of the
    contract. Thread-safe; only ``stop`` and ``withdraw`` block.
    """

    def __init__(
        self,
        backend: Backend,
        hooks: Hooks,
        broker: str = "",
        store: DeadLetterStore | None = None,
    ) -> None:
        """``store`` is where dead letters go that a server keeps until then."""
        self._backend = backend
        self._hooks = hooks
        self._name = f"gomq-{backend.name}-reader"
        self.held = HeldDeliveries()
        self.letters = ServerDeadLetters(broker, backend, store, self._report_store)
        self.sampler = Sampler(backend, self.report, self.letters.move_if_due)
        self._announced: Mapping[str, Subscription] = {}
        self._subscriptions: Mapping[str, Subscription] = {}
        self._settlers: Mapping[str, Settler] = {}
        self.reconnects = 0
        """How often the server answered again after it had not."""
        lease = backend.capabilities.lease
        extend = () if lease is None else ("extend",)
        self.times = OperationTimes("fetch", "settle", *extend)
        self._lease = lease
        self._extending = None if lease is None else _Every(lease / 3)
        self._comparing, self._serving = _Every(STATE_SECONDS), _Every(SERVE_SECONDS)
        self._woken = Event()
        self._is_fetching = True
        self._is_stopping = False
        self._failures = 0
        self._thread: Thread | None = None

    def subscribe(self, subscription: Subscription) -> None:
        self._subscriptions = {
            **self._subscriptions,
            subscription.consumer.name: subscription,
        }
        self._woken.set()

    def settle_by(self, consumer: str, settler: Settler) -> None:
        """End what is not handled at all by this settler."""
        self._settlers = {**self._settlers, consumer: settler}

    def start(self, run_soon: RunSoon) -> None:
        if not self.is_up:
            thread = Thread(target=self._run, name=self._name, daemon=True)
            thread.start()
            self._thread = thread
        self.sampler.start()

    @property
    def is_up(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_answered(self) -> bool:
        """Whether the server answered when it was asked last."""
        return not self._failures

    def pending(self, seconds: float) -> int:
        return 0  # what is not in a channel yet stays at the server

    def stop_fetching(self) -> None:
        self._is_fetching = False
        self._woken.set()

    def stop(self) -> None:
        self._is_fetching, self._is_stopping = False, True
        self.sampler.stop()
        self._woken.set()
        if self._thread is not None and self._thread is not current_thread():
            self._thread.join(1.0)

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        claim_thread()
        while not self._is_stopping:
            try:
                self._step()
                self.reconnects += self._failures > 0
                self._failures = 0
            except BaseException as error:  # noqa: BLE001 - whatever a client raises
                self._note(error)

    def _note(self, error: BaseException) -> None:
        self._failures += 1
        if self._failures == 1:  # once for each outage
            self.report(error)
        pause = min(MAX_BACKOFF, FIRST_BACKOFF * 2 ** min(self._failures - 1, 10))
        self._woken.wait(min(pause, MAX_WAIT) if self._is_stopping else pause)

    def _step(self) -> None:
        """Do what is due, and fetch or wait."""
        if self._extending is not None and self._extending.is_due:
            self._keep_leases()  # if that fails it stays due
            self._extending.done()
        self._look(self._comparing, self._compare_state)
        self._woken.clear()
        self._announce()
        wants = self._wants()
        if wants:
            if not self._fetch(wants):
                self._backend.wait(self._seconds_left())
            return
        if self._serving.is_due:
            self._serving.done()
            self._fetch(())
        self._woken.wait(min(self._seconds_left(), self._serving.left))

    def _look(self, every: _Every, look: Callable[[], None]) -> None:
        """Look at a server now and then; what fails there keeps nothing else back."""
        if every.is_due:
            every.done()
            try:
                look()
            except BaseException as error:  # noqa: BLE001 - the next look comes
                self.report(error)

    def _announce(self) -> None:
        subscriptions = self._subscriptions  # another one where there is one more
        if self._announced is not subscriptions:
            self._backend.announce(
                [subscription.consumer for subscription in subscriptions.values()]
            )
            self._announced = subscriptions

    def _seconds_left(self) -> float:
        due = [self._comparing.left, MAX_WAIT]
        if self._extending is not None:
            due.append(self._extending.left)
        return min(due)

    def _wants(self) -> list[Want]:
        """Return what may be fetched now; who wants nothing will wake us."""
        wants: list[Want] = []
        for subscription in self._subscriptions.values() if self._is_fetching else ():
            subscription.on_wanted = self._woken.set  # first: then the look
            room = subscription.wanted()
            if room:
                subscription.on_wanted = None
                wants.append(Want(subscription.consumer, room, subscription.busy_keys))
        return wants

    def _fetch(self, wants: Sequence[Want]) -> int:
        fetched = self.times.run("fetch", self._backend.fetch, wants)
        for found in fetched:
            rest = self.accept(found.consumer, found.deliveries)
            if rest:
                self._backend.release(rest)
        return sum(len(found.deliveries) for found in fetched)

    def _keep_leases(self) -> None:
        """Extend what is held; nothing starts for longer than a lease after that.

        A process that was stopped for so long learns first what it has lost.
        """
        began = Clock.monotonic()
        self._extend()
        for subscription in self._subscriptions.values():
            subscription.set_lease(began + (self._lease or 0.0))

    def _extend(self) -> None:
        held = self.held.all()
        if not held:
            return
        deliveries = list(held)
        answers = self.times.run("extend", self._backend.extend, deliveries)
        lost: dict[Subscription, set[Delivery]] = {}
        for delivery, answer in zip(deliveries, answers, strict=True):
            if answer is Settled.LOST_LEASE:
                lost.setdefault(held[delivery], set()).add(delivery)
        for subscription, gone in lost.items():
            # What is in a handler is left: its settlement will say LOST_LEASE.
            self.held.let_go(subscription.withdraw(gone.__contains__))

    def _compare_state(self) -> None:
        for name, state in self._backend.desired_state().items():
            subscription = self._subscriptions.get(name)
            if subscription is not None:
                subscription.become(paused=state.paused, capacity=state.capacity)

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """Have the backend end these, and note how long it takes; thread-safe."""
        return self.times.run("settle", self._backend.settle, settlements)

    # ------------------------------------------------------------ the inbox

    def accept(
        self, consumer: str, deliveries: Sequence[Delivery]
    ) -> Sequence[Delivery]:
        """Take in what a server handed out; return what found no room. Never blocks."""
        if not self._is_fetching:
            return deliveries  # they came while we stopped
        subscription = self._subscriptions[consumer]
        self.held.hold(deliveries, subscription)
        most = self._backend.capabilities.max_deliveries
        fit = [each for each in deliveries if each.deliveries <= most]
        rest = subscription.accept(fit)
        self.held.let_go(rest)
        for delivery in deliveries:
            if delivery.deliveries > most:
                error = DeliveryLimitError(
                    f"handed out {delivery.deliveries} times and never settled"
                )
                self._settlers[consumer].give_up(delivery, error)
        return rest

    def wanted(self, consumer: str) -> int:
        """Return how many deliveries of a consumer are wanted now."""
        return self._subscriptions[consumer].wanted() if self._is_fetching else 0

    def withdraw(
        self, consumer: str, is_lost: Callable[[Delivery], bool], timeout: float
    ) -> list[Delivery]:
        """Forget what was given to somebody else; return what is still in a handler."""
        gone = self._subscriptions[consumer].withdraw(is_lost)
        self.held.let_go(gone)
        return self.held.wait_until_gone(is_lost, timeout)

    def quarantine(
        self,
        consumer: str,
        raw: bytes,
        error: MessageError,
        token: object,
        message: Message[Any] | None = None,
    ) -> None:
        """Keep, as a dead letter, what cannot be decoded; ``token`` is settled then."""
        found: Message[Any] = Message(UNKNOWN, raw) if message is None else message
        delivery = Delivery(found, Clock.monotonic(), 1, token)
        self.held.hold([delivery], self._subscriptions[consumer])
        self._settlers[consumer].give_up(delivery, error)

    def report(self, error: BaseException) -> None:
        """Tell the observers that something failed that goes on. Does not block."""
        self._hooks.notify(lambda hook: hook.failed("reader", error))

    def _report_store(self, error: BaseException) -> None:
        self._hooks.notify(lambda hook: hook.failed("store of dead letters", error))
