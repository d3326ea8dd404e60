"""Ports that nobody uses now, others for each of the processes that test at once."""

from __future__ import annotations

import itertools
import os
import secrets
import socket
from typing import Final

# Below those that the system gives to connections, which come and go meanwhile.
_FIRST: Final = 20_000
_SHARE: Final = 800  # of one of up to 15 processes
_RUN: Final = 4

_PROCESS: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# Not from random, which begins anew in each test.
_turns: Final = itertools.count(secrets.randbelow(_SHARE))


def free_range(size: int) -> tuple[int, int]:
    """Return the first and the last of so many ports, up to four."""
    assert size <= _RUN
    for turn in itertools.islice(_turns, _SHARE // _RUN):
        first = _FIRST + _PROCESS % 15 * _SHARE + turn * _RUN % _SHARE
        try:
            for port in range(first, first + size):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first, first + size - 1
    raise AssertionError("no port is free")


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    return free_range(1)[0]
