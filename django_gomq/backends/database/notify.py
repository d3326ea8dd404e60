"""Tells workers of other processes at once that there is something, by NOTIFY.

Polling finds everything without it, only later. So nothing here may cost a request or a
transaction anything: one thread sends, after the commit, and one listens in a worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Any, Final

from django.db import Error, connections

from django_gomq.bus.backend import BackendContext
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.process.fork import claim_thread, may_start

from .connection import OwnConnection, check_alias

CHANNEL: Final = "gomq_outbox"
"""Of each database; what is sent on it is who sends."""
PAUSE: Final = 0.05
"""Seconds between two that a process sends, whatever it emits meanwhile."""
IDLE_SECONDS: Final = 30.0
"""After so long without one, the connection of the sender is closed."""
CHECK_SECONDS: Final = 30.0
"""How often a listener makes sure that its connection lives: it may die in silence."""
PROBE_SECONDS: Final = 10.0
"""What a first notification may take to come back."""
AGAIN_SECONDS: Final = 1.0
LATER_SECONDS: Final = 300.0
"""Until a listener tries again: that was cut off, or whose server passes nothing on."""
_WAIT_SECONDS: Final = 0.5
_JOIN_SECONDS: Final = 1.0

_SEND: Final = f"SELECT pg_notify('{CHANNEL}', %s)"


def listening_alias(notify: bool | str, using: str) -> str | None:
    """Return the database alias to listen on; None where nothing is notified.

    Raises ConfigurationError where that cannot work.
    """
    if notify is False:
        return None
    alias = using if notify is True else notify
    check_alias("notify", alias)
    for name in (using, alias):
        if connections[name].vendor != "postgresql":
            raise ConfigurationError(
                f"notify: database {name!r} is no PostgreSQL, which alone has NOTIFY. "
                "Leave it out: workers look by themselves."
            )
    from django.db.backends.postgresql.base import psycopg_version  # noqa: PLC0415 - its driver may be absent

    if psycopg_version() < (3, 2):
        raise ConfigurationError("notify needs psycopg 3.2 or later.")
    return alias


class Notifications:
    """Sends and hears that there is something to fetch; thread-safe, never raises.

    Each half starts with its first use. Without a ``listening`` alias it does nothing.
    """

    def __init__(
        self,
        using: str,
        listening: str | None,
        seconds: float,
        context: BackendContext,
        wake: Callable[[], object],
    ) -> None:
        self._sender: _Sender | None = None
        self._listener: _Listener | None = None
        if listening is not None:
            self._sender = _Sender(OwnConnection(using, seconds), context)
            self._listener = _Listener(
                OwnConnection(listening, seconds),
                OwnConnection(using, seconds),
                context,
                wake,
            )

    def send(self) -> None:
        """Tell the workers of other processes soon. Does not block."""
        if self._sender is not None:
            self._sender.send()

    def listen(self) -> None:
        """Call ``wake`` from now on when another process has sent."""
        if self._listener is not None:
            self._listener.start()

    def end(self) -> None:
        """Send what is due, and end both. Blocks for two seconds at most."""
        for half in (self._sender, self._listener):
            if half is not None:
                half.end()


class _Part:
    """One half: a thread that starts when it is needed."""

    def __init__(self, name: str, context: BackendContext) -> None:
        self._name = name
        self._context = context
        self._lock = Lock()
        self._ending = Event()
        self._thread: Thread | None = None
        self._is_failing = False

    def start(self) -> None:
        """Start the thread, if it does not run and can be had."""
        if self._thread is not None or self._ending.is_set() or not may_start():
            return
        with self._lock:
            if self._thread is None:
                thread = Thread(target=self._work, name=self._name, daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    self._fail(error)
                else:
                    self._thread = thread

    def end(self) -> None:
        """Have the thread end, and wait for it for a second at most."""
        self._ending.set()
        thread = self._thread
        if thread is not None:
            thread.join(_JOIN_SECONDS)

    def _fail(self, error: BaseException) -> None:
        if not self._is_failing:  # once for each outage
            self._context.inbox.report(error)
        self._is_failing = True

    def _work(self) -> None:
        claim_thread()
        self._run()

    def _run(self) -> None:
        raise NotImplementedError


class _Sender(_Part):
    """Sends one notification for all that was committed within ``PAUSE``."""

    def __init__(self, connection: OwnConnection, context: BackendContext) -> None:
        super().__init__("gomq-database-sender", context)
        self._connection = connection
        self._woken = Event()
        self._is_due = False

    def send(self) -> None:
        self._is_due = True
        self._woken.set()
        self.start()

    def end(self) -> None:
        self._ending.set()
        self._woken.set()
        super().end()

    def _run(self) -> None:
        while self._is_due or not self._ending.is_set():
            if not self._woken.wait(IDLE_SECONDS):
                self._connection.close()
                continue
            self._woken.clear()
            if self._is_due:
                self._is_due = False
                self._send_now()
                self._ending.wait(PAUSE)
        self._connection.close()

    def _send_now(self) -> None:
        try:
            try:
                self._connection.read(_SEND, (self._context.owner,))
            except Error:  # it may have broken long ago
                self._connection.read(_SEND, (self._context.owner,))
            self._is_failing = False
        except BaseException as error:  # noqa: BLE001 - whatever a driver raises
            self._fail(error)  # and who polls finds it


class _Listener(_Part):
    """Wakes the reader when another process has sent, and after each new LISTEN."""

    def __init__(
        self,
        connection: OwnConnection,
        probing: OwnConnection,
        context: BackendContext,
        wake: Callable[[], object],
    ) -> None:
        super().__init__("gomq-database-listener", context)
        self._connection = connection
        self._probing = probing
        self._wake = wake

    def _run(self) -> None:
        while not self._ending.is_set():
            pause = AGAIN_SECONDS
            try:
                self._connection.change(f"LISTEN {CHANNEL}")
                if self._is_heard():
                    self._listen()
                else:
                    self._fail(_not_heard(self._context.broker))
                    pause = LATER_SECONDS
            except BaseException as error:  # noqa: BLE001 - whatever a driver raises
                self._fail(error)
            self._connection.close()
            self._ending.wait(pause)

    def _is_heard(self) -> bool:
        """Whether what another connection sends arrives: poolers may take it away."""
        sent = f"{self._context.owner} listens"
        try:
            self._probing.read(_SEND, (sent,))
        finally:
            self._probing.close()
        until = time.monotonic() + PROBE_SECONDS
        while not self._ending.is_set() and time.monotonic() < until:
            if sent in self._connection.notifications(_WAIT_SECONDS):
                return True
        return self._ending.is_set()

    def _listen(self) -> None:
        self._is_failing = False
        self._wake()  # what was sent before the LISTEN was not heard
        checked = time.monotonic()
        while not self._ending.is_set():
            heard: list[Any] = self._connection.notifications(_WAIT_SECONDS)
            if any(sender != self._context.owner for sender in heard):
                self._wake()
            if time.monotonic() > checked + CHECK_SECONDS:
                self._connection.read("SELECT 1")
                checked = time.monotonic()


def _not_heard(broker: str) -> ConfigurationError:
    return ConfigurationError(
        f"Broker {broker!r}: nothing that is sent by NOTIFY arrives here. A pooler in "
        "transaction mode passes nothing on: set OPTIONS['notify'] to the alias of a "
        "connection to the server itself. Workers look by themselves meanwhile.",
        broker=broker,
    )
