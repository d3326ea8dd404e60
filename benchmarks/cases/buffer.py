"""The bounded buffer alone, beside those of the standard library."""

from __future__ import annotations

import queue
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from benchmarks.sink import DATA, NS, now

CAPACITY = 1000
BURST = 900
TAKE = 256  # items that the reader of a channel takes at once

Put = Callable[[object], object]
Read = Callable[[int], None]
Run = Callable[[], Mapping[str, float]]


def ours(items: int, bursts: int) -> Run:
    """Use what publishers put into: ten priorities, a hard bound; read in batches."""
    return _measured(partial(_make_ours, _find_ours()), items, bursts)


def standard(kind: str, items: int, bursts: int) -> Run:
    """Use a queue of the standard library, which puts and gets one by one."""

    def make() -> tuple[Put, Put, Read]:
        made = _KINDS[kind]()

        def read(count: int) -> None:
            for _ in range(count):
                made.get()

        return made.put, made.put, read

    return _measured(make, items, bursts)


_KINDS: Mapping[str, Callable[[], queue.Queue[object]]] = {
    "Queue": lambda: queue.Queue(CAPACITY),
    "PriorityQueue": lambda: queue.PriorityQueue(CAPACITY),
    "SimpleQueue": queue.SimpleQueue,  # type: ignore[dict-item]  # and not bounded
}


# The one thing here that is no public name: the first of these that there is.
_OURS = (
    "django_gomq.backends.memory.buffer:PublishBuffer",
    "django_gomq.bus.channels.channel:Channel",
)


def _find_ours() -> Callable[[int], Any]:
    for path in _OURS:
        module, _, name = path.partition(":")
        if find_spec(module) is not None:
            found: Callable[[int], Any] = getattr(import_module(module), name)
            return found
    raise ImportError(f"There is none of {', '.join(_OURS)}")


def _make_ours(buffer: Callable[[int], Any]) -> tuple[Put, Put, Read]:
    made = buffer(CAPACITY)

    def put(item: object) -> None:
        while not made.put(item):
            made.wait_for_room(1.0)

    def read(count: int) -> None:
        while count:
            taken = made.take(TAKE)
            if not taken:
                time.sleep(0)  # its owners are woken by others; here nobody sleeps
                continue
            made.release(len(taken))
            count -= len(taken)

    return made.put, put, read


def _measured(make: Callable[[], tuple[Put, Put, Read]], items: int, count: int) -> Run:
    def run() -> Mapping[str, float]:
        alone = [_time_puts(make()[0]) for _ in range(count)]
        return {"put": statistics.median(alone), "moved": _time_flow(make, items)}

    return run


def _time_puts(put: Put) -> float:
    item = tuple(DATA.items())
    began = now()
    for _ in range(BURST):
        put(item)
    return (now() - began) * NS / BURST


def _time_flow(make: Callable[[], tuple[Put, Put, Read]], items: int) -> float:
    _, put, read = make()
    item = tuple(DATA.items())
    reader = threading.Thread(target=read, args=[items])
    reader.start()
    began = now()
    for _ in range(items):
        put(item)
    reader.join()
    return items / ((now() - began) * NS)
