"""Handlers that fork: what becomes of the child that comes back from one."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from django_gomq.bus.broker import Broker
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from tests.bus.waiting import LONG, wait_until, wait_until_settled

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

Then = Callable[[], Any]


class Forking:
    """Forks at the first message; the child does something before it comes back."""

    def __init__(self, folder: Path, then: Then) -> None:
        self._folder = folder
        self._then = then
        self.child = 0

    def handle(self, message: Any) -> None:
        name = f"{os.getpid()}.{message.data}"
        (self._folder / name).touch()
        if self.child or message.data:
            return
        sys.stdout.flush()
        with warnings.catch_warnings():  # 3.12: a fork beside threads may deadlock
            warnings.simplefilter("ignore", DeprecationWarning)
            self.child = os.fork()
        if not self.child:
            self.child = -1
            self._then()

    async def handle_async(self, message: Any) -> None:
        await asyncio.sleep(0)
        self.handle(message)

    def handle_batch(self, messages: Sequence[Any]) -> None:
        for message in messages:
            self.handle(message)
            if self.child < 0:
                return

    def status(self) -> int:
        """Return the status of the child, which ends by itself."""
        wait_until(lambda: self.child)
        deadline = time.monotonic() + LONG
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(self.child, 9)
        os.waitpid(self.child, 0)
        pytest.fail("the child hangs")

    def handled_by_child(self) -> list[str]:
        return [one.name for one in self._folder.glob(f"{self.child}.*")]


def fail() -> None:
    raise ValueError("in the child")


def leave(code: object) -> Then:
    def then() -> None:
        sys.exit(code)  # type: ignore[arg-type]

    return then


ENDS: dict[str, tuple[Then, int]] = {
    "returns": (lambda: None, 0),
    "raises": (fail, 1),
    "exits": (leave(None), 0),
    "exits with a status": (leave(7), 7),
    "exits with a text": (leave("why"), 1),
    "exits with anything": (leave([]), 1),
    "exits at once": (lambda: os._exit(3), 3),
}
KINDS: dict[str, dict[str, Any]] = {
    "handle": {},
    "handle_async": {},
    "handle_batch": {"batch": 3, "linger": 0.01},
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_child_that_comes_back_ends_and_the_parent_handles_all_once(
    broker: Broker, tmp_path: Path, kind: str, end: str
) -> None:
    then, status = ENDS[end]
    forking = Forking(tmp_path, then)
    handler = getattr(forking, kind)
    retry = Retry(attempts=2, min_delay=0, max_delay=0)
    broker.consume("a.b", handler, name="c", retry=retry, **KINDS[kind])
    broker.pause("c")
    for number in range(3):
        broker.publish(Message("a.b", b"%d" % number))
    wait_until(lambda: broker.stats().consumers["c"].depth == 3)

    broker.resume("c")
    found = forking.status()
    wait_until_settled(broker)

    assert found == status
    assert broker.stats().consumers["c"].succeeded == 3
    assert forking.handled_by_child() == []
    mine = {one.name for one in tmp_path.glob(f"{os.getpid()}.*")}
    assert mine == {f"{os.getpid()}.{number}" for number in range(3)}


@pytest.mark.parametrize("is_watched", [False, True])
def test_what_a_thread_had_taken_besides_is_the_parents_alone(
    broker: Broker, tmp_path: Path, is_watched: bool
) -> None:
    forking = Forking(tmp_path, lambda: None)
    options: dict[str, Any] = {"max_age": 600} if is_watched else {}
    broker.consume("a.b", forking.handle, name="c", **options)
    for _ in range(500):  # fast ones, so that a thread takes many at a time
        broker.publish(Message("a.b", b"1"))
    wait_until_settled(broker)
    broker.pause("c")
    for number in range(50):
        broker.publish(Message("a.b", b"%d" % number))

    broker.resume("c")
    found = forking.status()
    wait_until_settled(broker)

    assert found == 0
    assert forking.handled_by_child() == []
    assert broker.stats().consumers["c"].succeeded == 550


def test_a_child_may_use_the_bus_before_it_comes_back(
    broker: Broker, tmp_path: Path
) -> None:
    def use() -> None:
        broker.publish(Message("c.d"))
        assert broker.close(LONG).is_clean
        assert done.is_set()

    done = threading.Event()
    forking = Forking(tmp_path, use)
    broker.consume("a.b", forking.handle, name="c")
    broker.consume("c.d", lambda _: done.set(), name="d")

    broker.publish(Message("a.b", b"0"))

    assert forking.status() == 0
    wait_until_settled(broker)
    assert not done.is_set()
