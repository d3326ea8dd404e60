"""What a process does for its metrics as it runs: share, serve on a port, end."""

from __future__ import annotations

from collections.abc import Callable

from . import registration
from .collector import BusCollector
from .page import render_this_process
from .ports import Ports, PortServer

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
    _server = PortServer(ports, render_this_process, collector.failures)


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
