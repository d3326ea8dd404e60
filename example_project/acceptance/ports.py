"""Ports of 127.0.0.1 for the servers of a demonstration, and their error."""

from __future__ import annotations

import socket
from random import SystemRandom
from typing import Final

# Below those that the system gives to connections, which come and go meanwhile.
_OTHERS: Final = range(10_000, 20_000)
_given: Final[set[int]] = set()


class ServerError(Exception):
    """A server did not start, or died; the text ends with the tail of its log."""


def checked_port(port: int) -> int:
    """Return a port that somebody asked for; raise ServerError if it is taken."""
    if not 0 < port < 65536:
        raise ServerError(f"{port} is no port: choose one of 1 to 65535.")
    if not _is_free(port):
        raise ServerError(
            f"Port {port} of 127.0.0.1 is taken, perhaps by another demo: end that, "
            f"choose another one, as in make demo PORT={port + 1}, or leave PORT out, "
            "which takes 8000 or a free one."
        )
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(preferred: int = 8000) -> int:
    """Return the preferred port if nothing listens there, any free one otherwise.

    Of the others each is returned once: who has one may not listen there yet.
    """
    if preferred and _is_free(preferred):
        return preferred
    for port in SystemRandom().sample(_OTHERS, min(len(_OTHERS), 200)):
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise ServerError("no free port on 127.0.0.1")
