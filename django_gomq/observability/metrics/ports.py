"""Serves the numbers of this process alone, on a port of its own; it counts nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import weakref
from collections.abc import Callable
from threading import Thread
from typing import Final

import msgspec

from django_gomq.bus.process import Process, current, settle_in

from .failures import Failures
from .page_server import Page, PageServer, Render

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

    def __init__(self, ports: Ports, render: Render, failures: Failures) -> None:
        """Make one that has opened nothing yet."""
        self.ports = ports
        self._page = Page(render, ports.admits, self._note)
        self._failures = failures
        failures.expect(KIND)
        self._seat: _Seat | None = None
        settle_in(self)
        _servers.add(self)

    def enter(self, process: Process) -> None:
        """Close what belongs to the parent of this process: it would keep its port."""
        seat = self._seat
        if seat is not None and seat.process is not process:
            self._seat = None
            seat.close_inherited()

    def close_inherited(self) -> None:
        """Close the socket if it is that of a parent, and no more. Idempotent."""
        seat = self._seat
        if seat is not None and seat.process.pid != os.getpid():
            seat.close_inherited()

    @property
    def port(self) -> int | None:
        """Where this process serves, if it does."""
        current()
        return self._seat.port if self._seat else None

    def ensure(self) -> None:
        """See to it that this process serves. Returns at once; raises nothing."""
        process = current()
        seat = self._seat
        if seat is not None and not seat.is_due:
            return
        if not self.ports.may_serve():
            return
        with process.lock:
            if self._seat is None or self._seat.is_due:
                self._seat = _Seat(process)
                self._start(self._seat)

    def close(self) -> None:
        """Stop serving in this process. Idempotent."""
        current()
        seat, self._seat = self._seat, None
        if seat is not None:
            seat.close()

    def _start(self, seat: _Seat) -> None:
        thread = Thread(
            target=self._run, args=(seat,), name="gomq-metrics", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends: nobody will scrape this any more
            seat.close()

    def _run(self, seat: _Seat) -> None:
        try:
            server = self._bind()
        except OSError:
            ports = self.ports
            self._note(
                f"No port from {ports.first} to {ports.last} of {ports.address} is "
                "free for the metrics of this process; make GOMQ['METRICS']"
                "['PORT_RANGE'] larger than the processes are many. It is tried again",
            )
            seat.fail()
        else:
            seat.serve(server)

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


class _Seat:
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
