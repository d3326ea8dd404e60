"""One site under test: processes on one server, their handlers, and what they did."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

import msgspec
import pytest

from django_gomq.bus.backend import Backend, Capabilities
from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.message import Message
from django_gomq.bus.stats import ConsumerStats, Remainder

from .harness import Harness

EVENT: Final = "suite.happened"
CONSUMER: Final = "suite.counter"
LONG: Final = 45.0
"""Seconds after which a test gives up: far more than anything takes."""

Record = Callable[[str, str], None]
"""Notes a verdict on a feature for the table at the end of the run."""


def wait_until(condition: Callable[[], object]) -> None:
    """Block until the condition is true; fail after a long time."""
    never = threading.Event()
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        never.wait(0.002)


class Notes:
    """A handler that notes the number and the attempt of each message."""

    def __init__(self, then: Callable[[Message[Any]], object] = lambda _: None) -> None:
        self.handled: list[tuple[Any, int]] = []
        self.times: list[float] = []
        self._then = then

    def handle(self, message: Message[Any]) -> None:
        self.times.append(time.monotonic())
        self.handled.append((message.data, message.attempt))
        self._then(message)

    @property
    def numbers(self) -> list[Any]:
        """The numbers of the messages, in the order in which they were started."""
        return [number for number, _ in self.handled]


class Gate:
    """A handler that stays inside until it is opened, or for some numbers only."""

    def __init__(self, *closed_for: int) -> None:
        self.entered: list[tuple[Any, int]] = []
        self.handled: list[tuple[Any, int]] = []
        self._closed_for = closed_for
        self._open = threading.Event()

    def handle(self, message: Message[Any]) -> None:
        self.entered.append((message.data, message.attempt))
        if not self._closed_for or message.data in self._closed_for:
            self._open.wait(LONG)
        self.handled.append((message.data, message.attempt))

    def open(self) -> None:
        self._open.set()

    @property
    def numbers(self) -> list[Any]:
        """The numbers of the messages whose handling has ended, in that order."""
        return [number for number, _ in self.handled]


class Call(msgspec.Struct, frozen=True):
    """What the bus asked of a backend, once."""

    name: str
    size: int
    """How many items it was given, or how many deliveries it returned."""
    thread: str
    ended: float
    failed: bool


_WATCHED: Final = (
    "fetch",
    "wait",
    "settle",
    "extend",
    "release",
    "stats",
    "desired_state",
    "publish",
    "publish_many",
)


class Calls:
    """Notes what the bus asks of one backend, and may stand between the two."""

    def __init__(self) -> None:
        self.log: deque[Call] = deque()
        self._lock = threading.Lock()
        self._is_cut = False
        self._running = 0
        self.before: Callable[[str, Sequence[Any]], object] = _let_pass
        """Called first, with the method's name and its arguments; it may raise."""

    def watch(self, backend: Backend) -> None:
        for name in _WATCHED:
            method = partial(self._call, name, getattr(backend, name))
            setattr(backend, name, method)

    def cut(self) -> None:
        """Let every call fail from now on; waits for those that are under way."""
        with self._lock:
            self._is_cut = True
        wait_until(lambda: not self._running)

    def mend(self) -> None:
        """End that."""
        self._is_cut = False

    @contextmanager
    def _passing(self, name: str) -> Iterator[None]:
        """Count a call that is under way; only to publish goes on through a cut."""
        with self._lock:
            if self._is_cut and not name.startswith("publish"):
                raise ConnectionError("cut off by the conformance suite")
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1

    def _call(self, name: str, method: Callable[..., Any], *given: Any) -> Any:
        answer: Any = None
        has_failed = True
        try:
            self.before(name, given)
            with self._passing(name):
                answer = method(*given)
            has_failed = False
            return answer
        finally:
            size = _size_of(name, given, answer)
            me = threading.current_thread().name
            self.log.append(Call(name, size, me, time.monotonic(), has_failed))

    def of(self, *names: str) -> list[Call]:
        """Return the calls of these methods, in their order."""
        return [call for call in self.log.copy() if call.name in names]

    def done(self, name: str) -> int:
        """Return how many calls of this method have succeeded."""
        return sum(not call.failed for call in self.of(name))


def _let_pass(name: str, given: Sequence[Any]) -> None:
    """Nothing stands between the bus and its backend."""


def _size_of(name: str, given: Sequence[Any], answer: Any) -> int:
    if name == "fetch":
        return sum(len(fetched.deliveries) for fetched in answer or ())
    return len(given[0]) if given and isinstance(given[0], list | tuple) else 0


class Process:
    """One process of the site: a broker, on a backend of its own."""

    def __init__(self, harness: Harness, **options: Any) -> None:
        self._harness = harness
        self.calls = Calls()
        self.broker = Broker(self._make_backend, **options)

    def _make_backend(self) -> Backend:
        self.backend = self._harness.make_backend()
        self.calls.watch(self.backend)
        return self.backend

    def consume(
        self,
        handler: Any,
        *types: str,
        name: str = CONSUMER,
        starts: bool = True,
        **options: Any,
    ) -> None:
        """Register a consumer, declare it at the server, and start the broker."""
        self.broker.consume(types or (EVENT,), handler, name=name, **options)
        self.broker.setup()
        if starts:
            self.broker.start()

    def send(self, *numbers: int, type: str = EVENT, **options: Any) -> None:  # noqa: A002
        """Publish a message for each number; it is the data of the event."""
        for number in numbers:
            self.broker.publish(Message(type, b"%d" % number, **options))

    def send_many(self, numbers: Sequence[int], **options: Any) -> None:
        """Publish such messages in one batch, and assert that all are taken."""
        messages: list[Message[Any]] = [
            Message(EVENT, b"%d" % number, **options) for number in numbers
        ]
        assert self.broker.publish_many(messages) == [None] * len(messages)

    def stats(self, name: str = CONSUMER) -> ConsumerStats:
        """Return the numbers of a consumer in this process."""
        return self.broker.stats().consumers[name]

    def is_quiet(self) -> bool:
        """Whether nothing is left to do here, and the law of counts holds."""
        stats = self.broker.stats()
        return stats.is_quiet and all(
            consumer.unaccounted == 0 for consumer in stats.consumers.values()
        )

    def wait_until_quiet(self) -> None:
        wait_until(self.is_quiet)

    def cut(self) -> None:
        """Cut this process off from the server, without a word to either."""
        self.calls.cut()
        self._harness.cut(self.backend)

    def mend(self) -> None:
        """End that."""
        self.calls.mend()
        self._harness.mend(self.backend)

    def close(self, timeout: float = LONG) -> Remainder:
        return self.broker.close(timeout)

    def end(self) -> None:
        """Close it without a drain, if it ever began."""
        with suppress(ConfigurationError):
            self.broker.close(0)


class Site:
    """The processes of one test, on one server; everything is closed at its end."""

    def __init__(self, harness: Harness, record: Record) -> None:
        self.harness = harness
        self._record = record
        probe = harness.make_backend()
        self.capabilities: Capabilities = probe.capabilities
        self._processes: list[Process] = []
        self._gates: list[Gate] = []

    def process(self, **options: Any) -> Process:
        """Return one more process; ``options`` are those of its broker."""
        process = Process(self.harness, **options)
        self._processes.append(process)
        return process

    def gate(self, *closed_for: int) -> Gate:
        """Return a handler that is opened at the end of the test, if not before."""
        gate = Gate(*closed_for)
        self._gates.append(gate)
        return gate

    def in_thread(self, publish: Callable[[], object]) -> threading.Thread:
        """Start a thread that publishes, and lets go of what it opened for that."""

        def run() -> None:
            publish()
            self.harness.leave_thread()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    # ------------------------------------------------------------ capabilities

    @property
    def has_delay(self) -> bool:
        """Whether a message may be delayed by a short time."""
        longest = self.capabilities.max_delay
        return longest is None or longest > 0

    @property
    def keeps_dead_letters(self) -> bool:
        """Whether dead letters can be replayed: at the server, or all in memory."""
        return self.capabilities.dead_letters or not self.capabilities.settles

    def promises(self, feature: str) -> bool:
        """Whether the backend has this capability; if not, the table will say so.

        For what the bus cannot refuse, as nobody asks for it by name.
        """
        is_promised = bool(getattr(self.capabilities, feature))
        if not is_promised:
            self.note_unpromised(feature)
        return is_promised

    def note_unpromised(self, feature: str) -> None:
        """Have the table say that the backend does not promise this."""
        self._record("not promised", feature)

    @contextmanager
    def refusal(self, feature: str, error: type[Exception]) -> Iterator[None]:
        """Assert that the bus refuses what the backend has no capability for."""
        with pytest.raises(error):
            yield
        self._record("refused", feature)

    # ------------------------------------------------------------ faults

    def let_lease_end(self) -> None:
        """Let the leases end of what nobody extends."""
        lease = self.capabilities.lease
        if lease is not None:
            self.harness.pass_time(1.2 * lease)

    def close(self) -> None:
        """Close every process, at once: some wait for what another one holds."""
        self.harness.start_server()
        for process in self._processes:
            if hasattr(process, "backend"):
                process.mend()
        for gate in self._gates:
            gate.open()
        closing = [
            threading.Thread(target=process.end, daemon=True)
            for process in self._processes
        ]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join(LONG)
        self.harness.close()
