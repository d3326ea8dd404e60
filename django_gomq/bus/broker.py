"""The broker: what an application talks to, one per alias and process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Unpack

from .backend import Backend, Capabilities, DeadLetter
from .consumer import Consumer, ConsumerOptions, make_consumer
from .counts import HANDLER_BUCKETS, WAIT_BUCKETS
from .delivery import original
from .errors import ConfigurationError, PublishError
from .event import EventMeta
from .fork import Process, current, mark, settle_in
from .hooks import Hook, Hooks
from .interrupts import run_whole
from .message import MAX_PRIORITY, NO_HEADERS, Message, validate
from .runtime import Life, Publish
from .stats import BrokerStats, Remainder
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
        declared: Iterable[str] = (),
        may_start: Callable[[], bool] = lambda: True,
        drain_timeout: float = 10.0,
        max_body_bytes: int = 262_144,
        wait_buckets: Sequence[float] = WAIT_BUCKETS,
        handler_buckets: Sequence[float] = HANDLER_BUCKETS,
    ) -> None:
        self.alias = alias
        self.drain_timeout = drain_timeout
        self._may_start = may_start
        self._max_body_bytes = max_body_bytes
        self._make_life = partial(
            Life,
            alias=alias,
            make_backend=make_backend,
            make_hooks=hooks if callable(hooks) else lambda: hooks,
            get_worker=get_worker,
            threads=threads,
            declared=tuple(declared),
            wait_buckets=tuple(wait_buckets),
            handler_buckets=tuple(handler_buckets),
        )
        self._consumers: dict[str, Consumer] = {}
        self._life: Life | None = None
        self._publish: Publish | None = None
        """The runtime's own, as long as it runs in this process."""
        for consumer in consumers:
            self._add(consumer)
        settle_in(self)

    def enter(self, process: Process) -> None:
        """Forget what belongs to a parent process."""
        life = self._life
        if life is not None and life.process is not process:
            self._life = self._publish = None

    def _here(self) -> Life | None:
        if not mark[0]:
            current()
        return self._life

    def _living(self) -> Life:
        life = self._here()
        return life if life is not None else self._begin(current())

    def _begin(self, process: Process) -> Life:
        with process.lock:
            if self._life is None:
                life = self._make_life(process)
                for consumer in self._consumers.values():
                    life.subscribe(consumer)
                self._life = life
            return self._life

    def _enliven(self, message: Message[Any]) -> Life:
        """Return the life of this process, started, or refuse the message."""
        life = self._living()
        if life.is_running:
            return life
        try:
            if life.is_closed or not self._may_start():
                raise life.why_not_running(message.type)
            self.start()
        except PublishError as error:
            life.handover.refuse(message, error)
            raise
        return life

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
        """Run this consumer too. Raises ConfigurationError if its name is taken."""
        with current().lock:
            self._add(consumer)
            if self._life is not None and consumer.enabled:
                self._life.subscribe(consumer)

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
        life = self._here()
        return life is not None and life.is_running

    @property
    def is_closed(self) -> bool:
        """Whether it drains, or has stopped, in this process."""
        life = self._here()
        return life is not None and life.is_closed

    @property
    def consumers(self) -> list[Consumer]:
        """The consumers that are enabled here."""
        return list(self._consumers.values())

    def start(self) -> None:
        """Start reader and handler threads in this process; idempotent.

        Raises BrokerClosedError after ``close``.
        """
        life = self._living()
        with life.process.lock:  # no close comes between
            life.start()
            self._publish = life.publish

    def close(self, timeout: float | None = None) -> Remainder:
        """Refuse new messages, finish what was accepted, stop; say what was left.

        Blocks up to ``timeout`` seconds (``drain_timeout`` by default) and about one
        more. Idempotent; a second caller waits for the first and gets its answer.
        """
        limit = self.drain_timeout if timeout is None else timeout
        life = self._living()
        with life.process.lock:
            self._publish = None
        return life.close(limit)

    def publish(self, message: Message[Any], *, timeout: float | None = None) -> None:
        """Hand one message over now.

        Waits for room only when given a ``timeout`` in seconds, and never on a thread
        of the bus. Raises the PublishError that says why it was refused, which is
        counted too; MessageError or ConfigurationError for what can never work.
        """
        # The hot path of every publish. A plain message fulfils all this without a
        # call, and hand_over stands here once more: a call costs 45 ns of 400.
        publish = self._publish
        if (
            publish is None
            or not mark[0]
            or type(message) is not Message
            or type(message.body) is not bytes
            or len(message.body) > self._max_body_bytes
            or type(message.priority) is not int
            or not 0 <= message.priority <= MAX_PRIORITY
            or message.key is not None
            or message.headers is not NO_HEADERS
            or message.delay
        ):
            validate(message, max_body_bytes=self._max_body_bytes)
            self.hand_over(message, timeout)
            return
        try:
            publish(message, timeout)
        except PublishError as error:
            self._refuse(message, error)
            raise

    def hand_over(self, message: Message[Any], timeout: float | None) -> None:
        """Publish a message that was validated; else as ``publish``."""
        publish = self._publish
        if type(message) is not Message:
            message = original(message)
        if publish is None or not mark[0]:
            publish = self._enliven(message).publish
        try:
            publish(message, timeout)
        except PublishError as error:
            self._refuse(message, error)
            raise

    def _refuse(self, message: Message[Any], error: PublishError) -> None:
        self._living().handover.refuse(message, error)

    def check(self, message: Message[Any]) -> None:
        """Raise what ``publish`` would raise at any time, for a message as this.

        That is MessageError and ConfigurationError; a full queue is none of these.
        """
        validate(message, max_body_bytes=self._max_body_bytes)
        self._living().backend.check(message)

    def publish_many(
        self, messages: Sequence[Message[Any]], *, timeout: float | None = None
    ) -> list[PublishError | None]:
        """Hand messages over in order; answer, for each, None or why it was refused.

        ``timeout`` bounds the whole call, in seconds. Raises MessageError or
        ConfigurationError for what can never work, before anything is handed over.
        """
        messages = [original(message) for message in messages]
        for message in messages:
            validate(message, max_body_bytes=self._max_body_bytes)
        backend = self._living().backend
        for message in messages:
            backend.check(message)
        return self.hand_over_many(messages, timeout)

    def hand_over_many(
        self,
        messages: Sequence[Message[Any]],
        timeout: float | None,
        parents: Sequence[tuple[object, ...]] = (),
        answers: list[PublishError | None] | None = None,
    ) -> list[PublishError | None]:
        """Publish messages that were checked; else as ``publish_many``.

        ``parents`` are what ``hooks.prepare`` returned for each. ``answers``,
        an empty list, has what is known so far if this is interrupted.
        """
        handover = self._living().handover
        try:
            if messages:
                self._enliven(messages[0])
        except PublishError as error:
            handover.refuse_all(messages[1:], error)
            return [error] * len(messages)
        return handover.publish_many(messages, timeout, parents, answers)

    def count_rolled_back(self, event: str, count: int = 1) -> None:
        """Count messages that a rollback took back before they were published."""
        self._living().refusals.count_rolled_back(event, count)

    @property
    def hooks(self) -> Hooks:
        """The observers of this process."""
        return self._living().hooks

    @property
    def capabilities(self) -> Capabilities:
        """What the backend promises."""
        return self._living().backend.capabilities

    @property
    def backend_name(self) -> str:
        """The backend's short name."""
        return self._living().backend.name

    def resize(self, consumer: str, capacity: int) -> None:
        """Give a consumer's channel another capacity, in this process."""
        self._living().subscription(consumer).channel.resize(capacity)

    def pause(self, consumer: str) -> None:
        """Start no more deliveries of this consumer in this process.

        Its channel fills, and then its overflow option decides.
        """
        self._living().subscription(consumer).paused = True

    def resume(self, consumer: str) -> None:
        """End a pause, or leave it as it was where a signal handler raises."""
        subscription = self._living().subscription(consumer)
        was_paused = subscription.paused
        try:
            subscription.paused = False
            run_whole(subscription.notify_all)
        except BaseException:
            subscription.paused = was_paused  # perhaps nobody was told
            raise

    def stats(self) -> BrokerStats:
        """Return the numbers of this process; exact when the bus is quiet."""
        return self._living().stats()

    def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters that are kept, oldest first."""
        return self._living().backend.dead_letters()
