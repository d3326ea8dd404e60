"""Connections to the server: every call has a limit, and says whether it was sent."""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn, cast
from urllib.parse import urlsplit

from redis import ConnectionPool, Sentinel
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from django_gomq.bus.errors import ConfigurationError

from .scripts import Command, with_text

_AWAY: Final = (
    AskError,
    ClusterDownError,
    MovedError,
    ReadOnlyError,
    TryAgainError,
)
_AWAY_TEXTS: Final = ("BUSY ", "NOREPLICAS")
"""Of errors of a server that is there, and does not serve this client now."""


_LIMITED_EACH: Final = 0.05
"""Seconds between two system calls that say how long an answer may take."""


Packable = Command | bytes
"""A command, or one as it is sent."""


class AwayError(Exception):
    """The server cannot be reached: nothing was sent."""


class UnansweredError(Exception):
    """It was sent, and the server has not answered: it may have done it, or not.

    ``answers`` are those that came.
    """

    def __init__(self, text: str, answers: Sequence[Any]) -> None:
        super().__init__(text)
        self.answers = answers


def is_away(answer: object) -> bool:
    """Whether an answer is an error that says to connect anew, and try again."""
    if isinstance(answer, _AWAY):
        return True
    return isinstance(answer, ResponseError) and str(answer).startswith(_AWAY_TEXTS)


class Server:
    """How to reach a server; thread-safe, opens nothing."""

    def __init__(
        self,
        url: str,
        *,
        sentinels: Sequence[tuple[str, int]],
        service: str,
        connect_timeout: float,
        timeout: float,
        options: Mapping[str, Any],
    ) -> None:
        self.timeout = timeout
        """Seconds for an answer, unless a call has its own limit."""
        ours = {
            "protocol": 2,  # the answers are read here, not by redis-py's client
            "decode_responses": False,
            "socket_connect_timeout": connect_timeout,
            "socket_timeout": timeout,
            "retry": Retry(NoBackoff(), 0),  # what may run twice is decided here
            "health_check_interval": 0,
        }
        kwargs: dict[str, Any] = {
            "client_name": "django-gomq",
            "socket_keepalive": True,
            **ours,
            **options,
        }
        self._pool: ConnectionPool
        _check_address(url)
        try:
            self._pool = ConnectionPool.from_url(url, **kwargs)
            _check_unchanged(ours, self._pool.connection_kwargs)
            if sentinels:
                kwargs |= self._pool.connection_kwargs
                self._pool = _watched(sentinels, service, connect_timeout, kwargs)
            self._make_connection()  # it takes all arguments, or says so
        except (ValueError, TypeError, RedisError) as error:
            raise ConfigurationError(f"The url or the connection: {error}") from None

    def connect(self, limit: float) -> AbstractConnection:
        """Return a new connection, or raise AwayError; blocks for up to the limit.

        That is in seconds; a server that takes it, and says nothing, takes it twice.
        """
        try:
            connection = self._make_connection()
            longest = connection.socket_connect_timeout or limit
            connection.socket_connect_timeout = min(longest, limit)
            connection.socket_timeout = min(longest, limit)  # of what it says first
            connection.connect()
        except (RedisError, OSError, UnicodeError) as error:  # no such host name
            raise AwayError(_told(error)) from error
        return connection

    def _make_connection(self) -> AbstractConnection:
        """Return one that is not open; a pool would count, and check what it gives."""
        pool = self._pool
        connection: AbstractConnection = pool.connection_class(**pool.connection_kwargs)
        return connection


def _check_address(url: str) -> None:
    """Raise ConfigurationError for what cannot be split, by words without a secret."""
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ConfigurationError(
            "url is no address: after the host comes a number, and what else has one "
            "of / ? # @ : in a user or a password is escaped by urllib.parse.quote."
        ) from None


def _check_unchanged(ours: Mapping[str, Any], used: Mapping[str, Any]) -> None:
    """Raise ValueError where an address or an option has set what is ours to set."""
    changed = sorted(name for name in ours if used[name] is not ours[name])
    if changed:
        raise ValueError(f"{', '.join(changed)} cannot be set there.")


def _watched(
    sentinels: Sequence[tuple[str, int]],
    service: str,
    connect_timeout: float,
    kwargs: dict[str, Any],
) -> ConnectionPool:
    own = {
        name: value for name, value in kwargs.items() if name not in ("host", "port")
    }
    asked = {
        "socket_connect_timeout": connect_timeout,
        "socket_timeout": connect_timeout,
        "protocol": 2,
    }
    manager = Sentinel(list(sentinels), sentinel_kwargs=asked)
    is_tls = kwargs.get("ssl", False)
    return SentinelConnectionPool(service, manager, ssl=is_tls, **own)


def _told(error: BaseException) -> str:
    if isinstance(error, AuthenticationError):
        return f"it refuses the user or the password: {error}"
    return str(error)


class ServerConnection:
    """One connection, made at its first use and again when it broke.

    For one caller at a time, and one process.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: AbstractConnection | None = None
        self._incoming = select.poll()

    @property
    def is_open(self) -> bool:
        """Whether it is connected, as far as is known."""
        return self._connection is not None

    def close(self) -> None:
        """Close it; the next call connects anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def send(self, *commands: Packable, limit: float | None = None) -> None:
        """Send commands. Raises AwayError, and UnansweredError if some may be sent.

        ``limit`` is that of a connection that has to be made, in seconds.
        """
        limit = self._server.timeout if limit is None else limit
        connection = self._fresh(limit)
        try:
            self._socket.settimeout(limit)
            for part in _in_sends(connection, commands):
                self._socket.sendall(part)
        except BaseException as error:  # noqa: BLE001 - it is raised again
            self._break(error)

    def _fresh(self, limit: float) -> AbstractConnection:
        """Return a connection on which nothing is under way, and that is not dead.

        One that the server has ended while it was idle is replaced: nothing was sent.
        """
        connection = self._connection
        if connection is not None:
            if not self._incoming.poll(0):
                return connection
            self.close()
        self._connection = self._server.connect(limit)
        self._incoming = select.poll()
        self._incoming.register(self.fileno(), select.POLLIN)
        return self._connection

    def exchange(self, packed: bytes, limit: float) -> Any:
        """Send one command, and return its answer, or the error in its place.

        As ``ask`` does, in a third of its time, for one command that is no script.
        """
        connection = self._fresh(limit)
        try:
            self._socket.settimeout(limit)
            self._socket.sendall(packed)
            answer = connection._parser.read_response(  # noqa: SLF001
                disable_decoding=True
            )
        except BaseException as error:  # noqa: BLE001 - it is raised again
            self._break(error)
        if isinstance(answer, Exception) and is_away(answer):
            self.close()
        return answer

    def _break(self, error: BaseException, answers: Sequence[Any] = ()) -> NoReturn:
        """Close it after an error, and raise what that means."""
        connection = self._connection
        self.close()  # an answer would be taken for that of another question
        if isinstance(error, BusyLoadingError):  # then it does nothing
            raise AwayError(_at(connection, error)) from error
        if isinstance(error, RedisError | OSError):
            raise UnansweredError(_at(connection, error), answers) from error
        raise error

    def fileno(self) -> int:
        """Return what to wait on for an answer."""
        return self._socket.fileno()  # type: ignore[no-any-return]

    @property
    def _socket(self) -> Any:
        assert self._connection is not None  # noqa: S101 - something was sent by it
        return self._connection._sock  # noqa: SLF001 - there is no other way to it

    def receive(self, count: int, deadline: float) -> list[Any]:
        """Return so many answers; an error of the server stands in its place.

        Blocks until ``deadline``, in monotonic seconds. Raises UnansweredError.
        """
        connection, answers = self._connection, list[Any]()
        limited = -1.0
        try:
            if connection is None:
                raise OSError("it was closed")  # noqa: TRY301 - as if it broke now
            # Not by read_response() of the connection: it takes longer than all else.
            read = connection._parser.read_response  # noqa: SLF001
            for _ in range(count):
                now = time.monotonic()
                if now - limited > _LIMITED_EACH:
                    self._socket.settimeout(max(0.001, deadline - now))
                    limited = now
                answers.append(read(disable_decoding=True))
        except BaseException as error:  # noqa: BLE001 - it is raised again
            self._break(error, answers)
        if any(is_away(answer) for answer in answers if isinstance(answer, Exception)):
            self.close()
        return answers

    def ask(
        self, commands: Sequence[Packable], timeout: float | None = None
    ) -> list[Any]:
        """Send commands together; return their answers, or the error for each.

        Blocks up to ``timeout`` seconds, or that of the server, and as long again where
        it has to connect. Raises AwayError and UnansweredError.
        """
        if not commands:
            return []
        limit = self._server.timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        self.send(*commands, limit=limit)
        answers = self.receive(len(commands), deadline)
        unknown = [
            nth for nth, each in enumerate(answers) if isinstance(each, NoScriptError)
        ]
        if unknown:
            self._send_scripts(commands, unknown, answers, deadline)
        return answers

    def _send_scripts(
        self,
        commands: Sequence[Packable],
        unknown: Sequence[int],
        answers: list[Any],
        deadline: float,
    ) -> None:
        """Run what was not run, as the server does not know the script.

        What has no answer then has that error in its place: others have theirs.
        """
        try:
            self.send(*(with_text(cast("Command", commands[nth])) for nth in unknown))
            again = self.receive(len(unknown), deadline)
        except AwayError:
            return  # their answers say so: they were not run
        except UnansweredError as error:
            missing = len(unknown) - len(error.answers)
            again = [*error.answers, *[UnansweredError(str(error), ())] * missing]
        for nth, answer in zip(unknown, again, strict=True):
            answers[nth] = answer

    def run(self, *commands: Packable, timeout: float | None = None) -> list[Any]:
        """Return the answers of commands. Raises the first that is an error."""
        answers = self.ask(commands, timeout)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers


def _at(connection: AbstractConnection | None, error: Exception) -> str:
    """Return what went wrong, and with which server."""
    host = getattr(connection, "host", None)  # a socket of Unix has a path instead
    if host is None:
        return f"{error} ({getattr(connection, 'path', 'not connected')})"
    return f"{error} ({host}:{getattr(connection, 'port', '')})"


def _in_sends(
    connection: AbstractConnection, commands: Iterable[Packable]
) -> Iterator[bytes]:
    """Yield what is sent: many commands in one call, and a large one as it is."""
    waiting, size = list[bytes](), 0
    for command in commands:
        pieces: Sequence[bytes] = (command,) if isinstance(command, bytes) else ()
        for piece in pieces or connection.pack_command(*command):
            if size and size + len(piece) > _SEND:
                yield b"".join(waiting)
                waiting, size = [], 0
            waiting.append(piece)
            size += len(piece)
    yield b"".join(waiting)


_SEND: Final = 2**17
"""Bytes: about what the buffers of a connection take at once."""


def is_lost_group(answer: object) -> bool:
    """Whether an answer says that a group, or its stream, is not there."""
    return isinstance(answer, ResponseError) and str(answer).startswith("NOGROUP")


def pending(
    connection: ServerConnection, stream: str, group: str, *owner: str
) -> Iterator[bytes]:
    """Yield the ids of what a group, or one owner in it, has not settled."""
    first = b"-"
    while True:
        asked = ("XPENDING", stream, group, first, "+", _PAGE, *owner)
        (rows,) = connection.ask([asked])
        if is_lost_group(rows):
            return
        if isinstance(rows, Exception):
            raise rows
        for row in rows:
            yield row[0]
        if len(rows) < _PAGE:
            return
        first = b"(" + rows[-1][0]


_PAGE: Final = 1000


class IdleConnections:
    """Idle connections, for as many callers at once as there are; thread-safe."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._idle: deque[ServerConnection] = deque()
        self._is_closed = False

    @contextmanager
    def borrow(self) -> Iterator[ServerConnection]:
        """Have a connection, the one that was used last."""
        connection = self.take()
        try:
            yield connection
        finally:
            self.give_back(connection)

    def take(self) -> ServerConnection:
        """Return a connection for its caller alone."""
        try:
            return self._idle.pop()
        except IndexError:
            return ServerConnection(self._server)

    def give_back(self, connection: ServerConnection) -> None:
        """Keep it for the next caller, or close it after the end."""
        if self._is_closed:
            connection.close()
        elif connection.is_open:
            self._idle.append(connection)

    def close(self) -> None:
        """Close those that are idle, and each of the others when it is given back."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()
