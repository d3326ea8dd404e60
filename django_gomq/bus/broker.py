"""The broker: what an application talks to, one per alias and process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Unpack

from .backend import Backend
from .consumer import Consumer, ConsumerOptions, make_consumer
from .controls import Controls
from .counts import HANDLER_BUCKETS, WAIT_BUCKETS
from .errors import ConfigurationError, PublishError
from .event import EventMeta
from .hook import Hook
from .life import Life
from .message import Message
from .plan import Plan
from .process import Process, current, mark, settle_in
from .publishing import Publishing
from .stats import Remainder
from .worker import Worker


class Broker(Publishing, Controls):
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
        self._plan = Plan(
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
        self._publish = None
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
                life = Life(self._plan, process)
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
