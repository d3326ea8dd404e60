"""The metrics page on a port of its own, for each process."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
import weakref
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import TCPServer
from threading import BoundedSemaphore, Thread
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler
from wsgiref.types import StartResponse, WSGIEnvironment

import msgspec
from prometheus_client.exposition import ThreadingWSGIServer

from django_gomq.bus.process.fork import Process, current, register
from django_gomq.observability.metrics import registration

from .collector import BusCollector, Failures
from .single_flight import Pages, this_process


class Page:
    """A WSGI application that shows one page, whatever the path."""

    def __init__(
        self,
        pages: Pages,
        admits: Callable[[str], bool],
        note_failure: Callable[[str], None],
    ) -> None:
        """``admits`` is asked of the Authorization header; see ``Failures.note``."""
        self._pages = pages
        self._admits = admits
        self._note_failure = note_failure

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer one request; raises nothing."""
        plain = [("Content-Type", "text/plain; charset=utf-8")]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _refuse(start_response, HTTPStatus.METHOD_NOT_ALLOWED, plain)
        if not self._admits(environ.get("HTTP_AUTHORIZATION", "")):
            headers = [*plain, ("WWW-Authenticate", "Bearer")]
            return _refuse(start_response, HTTPStatus.UNAUTHORIZED, headers)
        try:
            is_fine = "buckets=fine" in environ.get("QUERY_STRING", "").split("&")
            accept = environ.get("HTTP_ACCEPT", "")
            answer = self._pages.answer(accept, fine=is_fine)
        except Exception:  # noqa: BLE001 - whatever a collector of somebody raises
            self._note_failure("A page of metrics could not be made")
            return _refuse(start_response, HTTPStatus.INTERNAL_SERVER_ERROR, plain)
        status = f"{answer.status.value} {answer.status.phrase}"
        start_response(status, [("Content-Type", answer.content_type)])
        return [answer.body] if environ["REQUEST_METHOD"] == "GET" else []


def _refuse(
    start_response: StartResponse,
    status: HTTPStatus,
    headers: list[tuple[str, str]],
) -> Iterable[bytes]:
    start_response(f"{status.value} {status.phrase}", headers)
    return [f"{status.phrase}.\n".encode()]


class PageServer(ThreadingWSGIServer):
    """A server whose port nobody else has, and that asks no name server.

    Raises OSError where the address is taken, or not ours.
    """

    pause_seconds = 0.1
    most_connections = 8  # each has a thread
    allow_reuse_port = False  # else two processes may take one port, and share it
    timeout = None

    def __init__(self, address: str, port: int, page: Page) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, port), _Quiet)
        self.set_app(page)
        self._room = BoundedSemaphore(self.most_connections)
        self._open: dict[socket.socket, None] = {}
        """Connections, oldest first."""

    def server_bind(self) -> None:
        """Take the port, without the look-up of a name that the base class does."""
        TCPServer.server_bind(self)
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])
        self.setup_environ()

    def get_request(self) -> Any:
        """Return the next connection."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(self.pause_seconds)  # out of descriptors: do not ask on and on
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread; where there are many, the oldest connection ends.

        So nobody who keeps connections and says nothing keeps others out.
        """
        if not self._room.acquire(blocking=False):
            for oldest in list(self._open)[:1]:
                with contextlib.suppress(OSError):  # it has just ended
                    oldest.shutdown(socket.SHUT_RDWR)
            if not self._room.acquire(timeout=1.0):
                self.shutdown_request(request)
                return
        self._open[request] = None
        try:
            super().process_request(request, client_address)
        except BaseException:  # there is no thread for it
            self._forget(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def _forget(self, request: socket.socket) -> None:
        self._open.pop(request, None)
        self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client went away."""


class _Quiet(WSGIRequestHandler):
    """Logs no request, and lets nobody hold a thread."""

    timeout = 10.0

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
        """Say nothing."""


RETRY_SECONDS: Final = 10.0  # a worker that is replaced keeps its port until it ends
KIND: Final = "Ports"


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """Where processes may serve, and to whom."""

    first: int
    last: int
    address: str
    admits: Callable[[str], bool]
    """Whether the value of an Authorization header may read the page."""
    may_serve: Callable[[], bool]
    """Whether this is a process to be scraped."""


class PortServer:
    """Serves on the first free port of a range, one for each process.

    Thread-safe. Made before a fork, it gives each process a port of its own, at the
    first ``ensure``; a child closes what it inherits. No free port is logged once,
    counted, and tried again.
    """

    def __init__(self, ports: Ports, pages: Pages, failures: Failures) -> None:
        """Make one that has opened nothing yet."""
        self.ports = ports
        self._page = Page(pages, ports.admits, self._note)
        self._failures = failures
        failures.expect(KIND)
        self._listener: _Listener | None = None
        register(self)
        _servers.add(self)

    def after_in_child(self, process: Process) -> None:
        """Close what belongs to the parent of this process: it would keep its port."""
        listener = self._listener
        if listener is not None and listener.process is not process:
            self._listener = None
            listener.close_inherited()

    def close_inherited(self) -> None:
        """Close the socket if it is that of a parent, and no more. Idempotent."""
        listener = self._listener
        if listener is not None and listener.process.pid != os.getpid():
            listener.close_inherited()

    @property
    def port(self) -> int | None:
        """Where this process serves, if it does."""
        current()
        return self._listener.port if self._listener else None

    def ensure(self) -> None:
        """See to it that this process serves. Returns at once; raises nothing."""
        process = current()
        listener = self._listener
        if listener is not None and not listener.is_due:
            return
        if not self.ports.may_serve():
            return
        with process.lock:
            if self._listener is None or self._listener.is_due:
                self._listener = _Listener(process)
                self._start(self._listener)

    def close(self) -> None:
        """Stop serving in this process. Idempotent."""
        current()
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def _start(self, listener: _Listener) -> None:
        thread = Thread(
            target=self._run, args=(listener,), name="gomq-metrics", daemon=True
        )
        try:
            thread.start()
        except (RuntimeError, MemoryError):
            listener.fail()  # there are no threads now

    def _run(self, listener: _Listener) -> None:
        try:
            server = self._bind()
        except OSError as error:
            self._note(_not_free(self.ports, error))
            listener.fail()
        else:
            listener.serve(server)

    def _note(self, text: str) -> None:
        self._failures.note(KIND, text)

    def _bind(self) -> PageServer:
        refusal: OSError | None = None
        for port in range(self.ports.first, self.ports.last + 1):
            try:
                return PageServer(self.ports.address, port, self._page)
            except OSError as error:
                refusal = error
        raise refusal or OSError("the range is empty")


def _not_free(ports: Ports, error: OSError) -> str:
    """Return what to do about ports that cannot be had."""
    if ports.first == ports.last:
        return (
            f"Port {ports.first} of {ports.address} is not to be had for the metrics "
            f"of this process ({error}); name another one. It is tried again"
        )
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return (
            f"{ports.address} is no address of this machine ({error}), so that nobody "
            "can read the metrics of this process: mend "
            "GOMQ['METRICS']['PORT_ADDRESS']. It is tried again"
        )
    return (
        f"No port from {ports.first} to {ports.last} of {ports.address} is free for "
        "the metrics of this process; make GOMQ['METRICS']['PORT_RANGE'] larger than "
        "the processes are many. It is tried again"
    )


class _Listener:
    """What one process serves with."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.port: int | None = None
        self._server: PageServer | None = None
        self._is_closed = False
        self._retry_at: float | None = None

    @property
    def is_due(self) -> bool:
        """Whether it found no port, some time ago."""
        return self._retry_at is not None and time.monotonic() >= self._retry_at

    def fail(self) -> None:
        """Have it tried again later."""
        self._retry_at = time.monotonic() + RETRY_SECONDS

    def serve(self, server: PageServer) -> None:
        """Answer until it is closed; wakes up for requests alone."""
        self._server = server
        self.port = server.server_port
        while not self._is_closed:
            server.handle_request()
        server.socket.close()

    def close(self) -> None:
        """End ``serve``, which another thread is in."""
        self._is_closed, self.port = True, None
        if self._server is not None:
            self._server.pause_seconds = 0.0
            with contextlib.suppress(OSError):  # some systems need none of it
                self._server.socket.shutdown(socket.SHUT_RDWR)

    def close_inherited(self) -> None:
        """Close the socket in a forked child, where no thread serves."""
        if self._server is not None:
            self._server.socket.close()


_servers: weakref.WeakSet[PortServer] = weakref.WeakSet()


def _close_inherited() -> None:
    for server in list(_servers):
        server.close_inherited()


# A child that never uses the bus must not keep the port of a parent that ended. Where
# a fork tells nobody, as in uWSGI, the child closes it when it first uses the bus.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)


_server: PortServer | None = None


def serve_on(
    collector: BusCollector,
    port_range: tuple[int, int],
    *,
    address: str,
    admits: Callable[[str], bool],
    may_serve: Callable[[], bool],
) -> None:
    """Have each process serve its own numbers on a port from now on.

    ``admits`` is asked of an Authorization header, ``may_serve`` of a process. Opens
    nothing yet. Not to be called from two threads at once.
    """
    global _server  # noqa: PLW0603 - a process has one such port
    stop_serving()
    first, last = port_range
    ports = Ports(
        first=first, last=last, address=address, admits=admits, may_serve=may_serve
    )
    _server = PortServer(ports, this_process, collector.failures)


def stop_serving() -> None:
    """Serve on no port any more."""
    global _server
    server, _server = _server, None
    if server is not None:
        server.close()


def ensure_served(**signal: object) -> None:
    """Begin to serve where that is wanted; a receiver of any signal.

    Thread-safe. Returns at once, and raises nothing.
    """
    if _server is not None:
        _server.ensure()


def tick() -> None:
    """Do what is due about once a second in a process whose bus runs."""
    ensure_served()
    registration.flush()


def end() -> None:
    """Write last numbers and close the port, after the brokers are closed. Idempotent.

    Blocks for as long as a few files take.
    """
    registration.end()
    if _server is not None:
        _server.close()
