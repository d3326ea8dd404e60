"""The broker: what an application talks to, one per alias and process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Unpack

from .backend import Backend, Capabilities, ConsumerState
from .consumer import Consumer, ConsumerOptions, make_consumer
from .counts import HANDLER_BUCKETS, WAIT_BUCKETS
from .dead_letters import DeadLetter, Keeping
from .delivery import original
from .durations import timeout_of
from .errors import ConfigurationError, NotRunningError, PublishError, class_name
from .event import EventMeta
from .hooks import Hook, Hooks
from .message import DEFAULT_PRIORITY, NO_HEADERS, Message, validate
from .process.fork import Process, current, is_same_process, register
from .process.interrupts import run_shielded
from .runtime import BrokerRuntime, Publish
from .stats import BrokerStats, Remainder
from .worker.server_dead_letters import ServerDeadLetters
from .worker.worker import Worker


class Broker:
    """Publishes messages, and runs the consumers of one backend in this process.

    Thread-safe. It may be made before a fork: every process has queues, threads and
    counts of its own, made at the first use, and a child sees nothing of its parent's.
    """

    def __init__(
        self,
        make_backend: Callable[[], Backend],
        alias: str = "default",
        *,
        consumers: Iterable[Consumer] = (),
        hooks: Sequence[Hook] | Callable[[], Sequence[Hook]] = (),
        get_worker: Callable[[], Worker] | None = None,
        threads: int = 8,
        declared: Callable[[], Iterable[str]] = tuple,
        may_start: Callable[[], bool] = lambda: True,
        may_wait: Callable[[], bool] = lambda: False,
        drain_timeout: float = 10.0,
        max_body_bytes: int = 262_144,
        source: str = "django-gomq",
        keeping: Keeping = Keeping(),  # noqa: B008 - it is frozen
        wait_buckets: Sequence[float] = WAIT_BUCKETS,
        handler_buckets: Sequence[float] = HANDLER_BUCKETS,
    ) -> None:
        self.alias = alias
        self.drain_timeout = drain_timeout
        self.declared = declared
        """Returns the event types that have numbers before their first message."""
        self.wait_buckets = tuple(wait_buckets)
        """The bounds that Prometheus is shown, of those that are counted by."""
        self.handler_buckets = tuple(handler_buckets)
        self._may_start = may_start
        self._max_body_bytes = max_body_bytes
        self._make_runtime = partial(
            BrokerRuntime,
            alias=alias,
            make_backend=make_backend,
            make_hooks=hooks if callable(hooks) else lambda: hooks,
            get_worker=get_worker,
            threads=threads,
            may_wait=may_wait,
            source=source,
            keeping=keeping,
            wait_buckets=self.wait_buckets,
            handler_buckets=self.handler_buckets,
        )
        self.on_start: Callable[[Broker], object] = lambda _: None
        """Called before it starts in a process, or publishes in one without a start."""
        self._consumers: dict[str, Consumer] = {}
        self._runtime: BrokerRuntime | None = None
        self._publish: Publish | None = None
        """The runtime's own, as long as it may be used in this process."""
        for consumer in consumers:
            self._add(consumer)
        register(self)

    def after_in_child(self, process: Process) -> None:
        """Forget what belongs to a parent process."""
        runtime = self._runtime
        if runtime is not None and runtime.process is not process:
            self._runtime = self._publish = None

    def _here(self) -> BrokerRuntime | None:
        if not is_same_process[0]:
            current()
        return self._runtime

    def _current_runtime(self) -> BrokerRuntime:
        return self._here() or self._begin(current())

    def _begin(self, process: Process) -> BrokerRuntime:
        with process.lock:
            if self._runtime is None:
                runtime = self._make_runtime(process, declared=tuple(self.declared()))
                for consumer in self._consumers.values():
                    runtime.subscribe(consumer)
                self._runtime = runtime
            return self._runtime

    def _start_for(self, message: Message[Any]) -> BrokerRuntime:
        """Return the runtime of this process, fit to publish, or refuse the message.

        What outlives the process may be published where no consumer runs.
        """
        runtime = self._current_runtime()
        if runtime.is_running:
            return runtime
        is_durable = runtime.backend.capabilities.durable
        try:
            if runtime.is_closed or not (is_durable or self._may_start()):
                raise runtime.why_not_running(message.type)
            if self._may_start():
                self.start()
            else:
                self.on_start(self)
                self._publish = runtime.publish
        except NotRunningError as error:
            if not is_durable:
                runtime.publisher.refuse(message, error)
                raise
        except PublishError as error:
            runtime.publisher.refuse(message, error)
            raise
        return runtime

    def consume(
        self,
        types: str | EventMeta | Sequence[str | EventMeta],
        handler: Any,
        *,
        name: str,
        **options: Unpack[ConsumerOptions],
    ) -> Consumer:
        """Subscribe one handler to these types, in this process and its children.

        Raises ConfigurationError for wrong options or a name that is taken.
        """
        listed = [types] if isinstance(types, str | EventMeta) else list(types)
        consumer = make_consumer(listed, handler, name=name, options=dict(options))
        self.add(consumer)
        return consumer

    def add(self, consumer: Consumer) -> None:
        """Run this consumer too.

        Raises ConfigurationError if its name is taken, or the backend cannot run it.
        """
        with current().lock:
            self._add(consumer)
            if self._runtime is not None and consumer.enabled:
                try:
                    self._runtime.subscribe(consumer)
                except ConfigurationError:
                    del self._consumers[consumer.name]  # so that it can be corrected
                    raise

    def _add(self, consumer: Consumer) -> None:
        if consumer.name in self._consumers:
            raise ConfigurationError(
                f"Broker {self.alias!r} has a consumer {consumer.name!r} already.",
                consumer=consumer.name,
                broker=self.alias,
            )
        if consumer.enabled:
            self._consumers[consumer.name] = consumer

    @property
    def is_started(self) -> bool:
        """Whether it runs in this process now."""
        runtime = self._here()
        return runtime is not None and runtime.is_running

    @property
    def is_used(self) -> bool:
        """Whether this process has published, read or asked anything by it."""
        return self._here() is not None

    @property
    def is_closed(self) -> bool:
        """Whether it drains, or has stopped, in this process."""
        runtime = self._here()
        return runtime is not None and runtime.is_closed

    @property
    def is_draining(self) -> bool:
        """Whether it finishes what it accepted in this process, to stop then."""
        runtime = self._here()
        return runtime is not None and runtime.is_closing

    def has_work(self, seconds: float = math.inf) -> bool:
        """Whether it runs, and could still finish something that was accepted.

        ``seconds`` is within which time; what a pause keeps is not counted.
        """
        runtime = self._here()
        return runtime is not None and runtime.has_work(seconds)

    @property
    def consumers(self) -> list[Consumer]:
        """The consumers that are enabled here."""
        return list(self._consumers.values())

    @property
    def spills(self) -> bool:
        """Whether a consumer here asks to spill what it has no room for."""
        return "spill" in {each.overflow for each in self._consumers.values()}

    def setup(self) -> list[str]:
        """Declare at the server what the consumers need; return what was done.

        To be called once for each deploy; blocks for the server, and raises what its
        client raises. A backend without a server has nothing to declare.
        """
        return self._current_runtime().backend.setup(self.consumers)

    def check_server(self) -> list[str]:
        """Return what is wrong with the backend and its server, a sentence each.

        Blocks for the server, and raises what its client raises.
        """
        return self._current_runtime().backend.check(self.consumers)

    def start(self) -> None:
        """Start reader and handler threads in this process; idempotent.

        Raises BrokerClosedError after ``close``, and NotRunningError where a thread
        cannot be had; the next call, or publish, starts what is missing.
        """
        runtime = self._current_runtime()
        if not runtime.is_running:
            self.on_start(self)
        with runtime.process.lock:  # no close comes between
            runtime.start()
            self._publish = runtime.publish

    def finish(self, timeout: float) -> None:
        """Wait until what was accepted is finished, and go on; thread-safe.

        Blocks up to ``timeout`` seconds. What a pause keeps is not waited for.
        """
        self._current_runtime().finish(timeout)

    def close(self, timeout: float | timedelta | None = None) -> Remainder:
        """Refuse new messages, finish what was accepted, stop; say what was left.

        Blocks up to ``timeout`` seconds (``drain_timeout`` by default) and about one
        more. Idempotent; a second caller waits for the first and gets its answer, and
        the shorter time of both is that of the drain.
        """
        limit = math.inf if timeout == math.inf else timeout_of(timeout)
        limit = self.drain_timeout if limit is None else limit
        runtime = self._current_runtime()
        with runtime.process.lock:
            self._publish = None
        return runtime.close(limit)

    def publish(
        self, message: Message[Any], *, timeout: float | timedelta | None = None
    ) -> None:
        """Hand one message over now.

        Waits for room up to ``timeout`` seconds; without one as long as it takes where
        the process may wait (a command, a script), else not at all, and never on a
        thread of the bus or for a handler. Raises the PublishError that says why it was
        refused, which is counted too; MessageError or ConfigurationError for what can
        never work.
        """
        # The hot path of every publish. A plain message fulfils all this without a
        # call, and hand_over stands here once more: a call costs 45 ns of 400.
        seconds = None if timeout is None else timeout_of(timeout)
        publish = self._publish
        if (
            publish is None
            or not is_same_process[0]
            or type(message) is not Message
            or type(message.body) is not bytes
            or len(message.body) > self._max_body_bytes
            or message.priority is not DEFAULT_PRIORITY
            or message.key is not None
            or message.headers is not NO_HEADERS
            or message.delay
        ):
            self.check(message)
            self.hand_over(message, seconds)
            return
        try:
            publish(message, seconds)
        except PublishError as error:
            self._refuse(message, error)
            raise

    def hand_over(self, message: Message[Any], timeout: float | None) -> None:
        """Publish a message that was validated; else as ``publish``."""
        publish = self._publish
        if type(message) is not Message:
            message = original(message)
        if publish is None or not is_same_process[0]:
            publish = self._start_for(message).publish
        try:
            publish(message, timeout)
        except PublishError as error:
            self._refuse(message, error)
            raise

    def _refuse(self, message: Message[Any], error: PublishError) -> None:
        self._current_runtime().publisher.refuse(message, error)

    def check(self, message: Message[Any]) -> None:
        """Raise what ``publish`` would raise at any time, for a message as this.

        That is MessageError and ConfigurationError; a full queue is none of these.
        """
        if not isinstance(message, Message):
            raise ConfigurationError(
                f"A broker publishes messages, and {class_name(message)} is none: "
                "emit() takes events."
            )
        validate(message, max_body_bytes=self._max_body_bytes)
        self._current_runtime().check(message)

    def publish_many(
        self,
        messages: Sequence[Message[Any]],
        *,
        timeout: float | timedelta | None = None,
    ) -> list[PublishError | None]:
        """Hand messages over in order; answer, for each, None or why it was refused.

        ``timeout`` bounds the whole call, in seconds. Raises MessageError or
        ConfigurationError for what can never work, before anything is handed over.
        """
        messages = [original(message) for message in messages]
        for message in messages:
            self.check(message)
        return self.hand_over_many(messages, timeout_of(timeout))

    def hand_over_many(
        self,
        messages: Sequence[Message[Any]],
        timeout: float | None,
        parents: Sequence[tuple[object, ...]] = (),
    ) -> list[PublishError | None]:
        """Publish messages that were checked; else as ``publish_many``.

        ``parents`` are what ``hooks.prepare`` returned for each.
        """
        publisher = self._current_runtime().publisher
        try:
            if messages:
                self._start_for(messages[0])
        except PublishError as error:
            publisher.refuse_all(messages[1:], error)
            return [error] * len(messages)
        return publisher.publish_many(messages, timeout, parents)

    def publish_in_transaction(
        self,
        messages: Sequence[Message[Any]],
        using: str,
        parents: Sequence[tuple[object, ...]] = (),
    ) -> None:
        """Write messages that were checked into the open transaction of a database.

        They exist once it commits, and count as published by ``count_committed``.
        Raises ConfigurationError where the backend is not ``transactional``,
        BrokerClosedError, and what the database raises; blocks as it does.
        """
        runtime = self._current_runtime()
        if not runtime.backend.capabilities.transactional:
            raise ConfigurationError(
                f"The backend of broker {self.alias!r} cannot write into a transaction "
                f"of database {using!r}: publish after its commit.",
                broker=self.alias,
            )
        if runtime.is_closed:
            raise runtime.why_not_running(messages[0].type)
        if self._publish is None:
            self._start_for(messages[0])
        runtime.publisher.publish_in_transaction(messages, using, parents)

    def count_committed(self, event: str, count: int = 1) -> None:
        """Count messages that were written into a transaction which has committed.

        A reader of this process looks for them at once.
        """
        runtime = self._current_runtime()
        runtime.counts.count_accepted(event, count)
        runtime.backend.wake()

    def count_refused(self, event: str, reason: str, count: int = 1) -> None:
        """Count events that were refused before they were messages; 0 is shown too."""
        self._current_runtime().counts.count_refused(event, reason, count)

    def count_rolled_back(self, event: str, count: int = 1) -> None:
        """Count messages that a rollback took back before they were published."""
        self._current_runtime().counts.count_rolled_back(event, count)

    @property
    def hooks(self) -> Hooks:
        """The observers of this process."""
        return self._current_runtime().hooks

    @property
    def capabilities(self) -> Capabilities:
        """What the backend promises."""
        return self._current_runtime().backend.capabilities

    @property
    def backend(self) -> Backend:
        """The adapter of this process, for what operators ask of a server."""
        return self._current_runtime().backend

    @property
    def backend_name(self) -> str:
        """The backend's short name."""
        return self._current_runtime().backend.name

    def resize(self, consumer: str, capacity: int) -> None:
        """Give a consumer's channel another capacity, in this process."""
        self._current_runtime().subscription(consumer).channel.resize(capacity)

    def pause(self, consumer: str) -> None:
        """Start no more deliveries of this consumer in this process.

        Its channel fills, and then its overflow option decides.
        """
        self._current_runtime().subscription(consumer).set_paused(True)

    def resume(self, consumer: str) -> None:
        """End a pause, or leave it as it was where a signal handler raises."""
        subscription = self._current_runtime().subscription(consumer)
        was_paused = subscription.paused
        try:
            subscription.paused = False
            run_shielded(subscription.notify_all)
        except BaseException:
            subscription.paused = was_paused  # perhaps nobody was told
            raise

    def apply(self, consumer: str, state: ConsumerState) -> None:
        """Have a consumer be as an operator wants it, in this process."""
        subscription = self._current_runtime().subscription(consumer)
        subscription.become(paused=state.paused, capacity=state.capacity)

    def stats(self) -> BrokerStats:
        """Return the numbers of this process; exact when the bus is quiet."""
        return self._current_runtime().stats()

    def dead_letters(self) -> list[DeadLetter]:
        """Return dead letters that are kept, up to 1,000, each source's oldest first.

        They are the first of those of a server that keeps them, else the latest. This
        and what follows blocks for the server, or for a table, and raises as it does.
        """
        return self._current_runtime().kept_letters.list()

    def iter_dead_letters(self) -> Iterator[DeadLetter]:
        """Yield all dead letters that are kept, each source's oldest first, by pages.

        What is given up meanwhile may come too, and twice what is moved meanwhile.
        """
        return self._current_runtime().kept_letters.all()

    @property
    def server_letters(self) -> ServerDeadLetters:
        """What the server keeps of them, and the store has that they are moved to."""
        return self._current_runtime().inbox.letters

    def replay(self, ids: Sequence[str]) -> int:
        """Hand dead letters to their consumers again; return how many found room.

        Raises ConfigurationError where the backend cannot.
        """
        return self._current_runtime().replay(ids)

    def look_for_replays(self) -> None:
        """Have dead letters taken that another process wants to be replayed.

        Starts the broker where an emit would; else does nothing. Does not block.
        """
        if self._may_start() and not self.is_closed:
            self.start()
        runtime = self._here()
        if runtime is not None and runtime.is_running:
            runtime.letters.look()

    def discard(self, ids: Sequence[str]) -> int:
        """Forget dead letters; return how many there were."""
        return self._current_runtime().kept_letters.discard(ids)
