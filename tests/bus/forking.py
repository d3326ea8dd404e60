"""A forked child that answers through a pipe, and never outlives its test."""

from __future__ import annotations

import os
import pickle
import select
import signal
import time
import warnings
from collections.abc import Callable
from typing import Any

from tests.bus.waiting import LONG


def in_child(work: Callable[[], Any]) -> Any:
    """Return what ``work`` returns in a forked child; fail for what it raises."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():  # 3.12: a fork beside threads may deadlock
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        _answer(work, writer)
    os.close(writer)
    try:
        answer, error = pickle.loads(_read_to_the_end(reader))
    finally:
        os.kill(pid, signal.SIGKILL)  # it has ended by itself, or hangs
        os.waitpid(pid, 0)
        os.close(reader)
    assert error is None, f"the child failed: {error}"
    return answer


def _read_to_the_end(reader: int) -> bytes:
    """Return what comes until the child's end closes the pipe."""
    found = b""
    deadline = time.monotonic() + LONG
    while True:
        left = max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([reader], [], [], left)
        assert ready, "the child hangs"
        read = os.read(reader, 65_536)
        if not read:
            return found
        found += read


def _answer(work: Callable[[], Any], writer: int) -> None:
    answer: tuple[Any, str | None]
    try:
        answer = work(), None
    except BaseException as error:  # noqa: BLE001 - the parent's test fails for it
        answer = None, repr(error)
    os.write(writer, pickle.dumps(answer))
    os._exit(0)
