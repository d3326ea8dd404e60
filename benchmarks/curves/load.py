"""One publish, and a flood of them, as a site grows in one direction."""

from __future__ import annotations

import itertools
import statistics
import threading
from collections.abc import Callable, Iterator, Mapping

from benchmarks.cases.bus import Bus, OrderPaid
from benchmarks.sink import BODY, NS, PATIENCE, TYPE, now
from django_gomq import Event, Message, emit

Run = Callable[[], Mapping[str, float]]
BURST = 900  # fits the default queue of 1000
BURSTS = 10
HEAVY = 64 * 1024 * 1024  # bytes of one burst, of which all may be in memory


class Note(Event, type="bench.note"):
    """An event of any size."""

    text: str


def consumers(count: int, messages: int) -> Run:
    """Publish one type to so many consumers."""
    bus = Bus(count, overflow="backpressure")
    return _both(bus, itertools.repeat(TYPE), messages)


def event_types(count: int, messages: int) -> Run:
    """Publish so many types in turn, to one consumer of all of them."""
    types = [f"bench.type_{number}" for number in range(count)]
    bus = Bus(types=types, overflow="backpressure")
    names = itertools.cycle(types)
    first = {"first": _burst(bus, names, count)}  # only once in a process
    run = _both(bus, names, messages)
    return lambda: {**run(), **first}


def patterns(count: int) -> Run:
    """Publish beside so many consumers whose patterns match something else."""
    bus = Bus(types=[TYPE, "fresh.*"])
    for number in range(count):
        other = f"bench_{number}.*"
        bus.broker.consume([other], lambda message: None, name=f"other_{number}")
    names = (f"fresh.type_{number}" for number in itertools.count())
    known = itertools.repeat(TYPE)

    def run() -> Mapping[str, float]:
        first = [_burst(bus, names, 90) for _ in range(BURSTS)]
        again = [_burst(bus, known, BURST) for _ in range(BURSTS)]
        return {"first": statistics.median(first), "publish": statistics.median(again)}

    return run


def bodies(size: int, messages: int) -> Run:
    """Publish bodies of so many bytes, and emit events that are encoded to them."""
    text = "x" * (size - len(b'{"text":""}'))
    count = min(BURST, HEAVY // size)
    bus = Bus(types=[Note], handler=_read, overflow="backpressure")
    body = b'{"text":"%s"}' % text.encode()

    def run() -> Mapping[str, float]:
        return {
            "publish": _publish_bodies(bus, body, count),
            "emit": _emit_texts(bus, text, count),
            "handled": _time_texts(bus, text, messages),
        }

    return run


def threads(count: int, messages: int) -> Run:
    """Emit from so many threads at once, until all is handled."""
    bus = Bus(overflow="backpressure")
    part = messages // count

    def emit_part() -> None:
        for _ in range(part):
            event = OrderPaid(order_id=12345, status="paid", total="99.90")
            emit(event, timeout=PATIENCE)

    def run() -> Mapping[str, float]:
        emitters = [threading.Thread(target=emit_part) for _ in range(count)]
        began = now()
        for one in emitters:
            one.start()
        for one in emitters:
            one.join()
        bus.settle(part * count)
        return {"handled": part * count / ((now() - began) * NS)}

    return run


def _both(bus: Bus, names: Iterator[str], messages: int) -> Run:
    def run() -> Mapping[str, float]:
        bursts = [_burst(bus, names, BURST) for _ in range(BURSTS)]
        began = now()
        for name in itertools.islice(names, messages):
            bus.broker.publish(Message(name, BODY), timeout=PATIENCE)
        bus.settle(messages)
        flow = messages / ((now() - began) * NS)
        return {"publish": statistics.median(bursts), "handled": flow}

    return run


def _burst(bus: Bus, names: Iterator[str], count: int) -> float:
    publish = bus.broker.publish
    chosen = list(itertools.islice(names, count))
    began = now()
    for name in chosen:
        publish(Message(name, BODY))
    spent = now() - began
    bus.settle(count)
    return spent * NS / count


def _read(message: Message[Note]) -> None:
    _ = message.data


def _publish_bodies(bus: Bus, body: bytes, count: int) -> float:
    began = now()
    for _ in range(count):
        bus.broker.publish(Message("bench.note", body))
    spent = now() - began
    bus.settle(count)
    return spent * NS / count


def _emit_texts(bus: Bus, text: str, count: int) -> float:
    event = Note(text=text)
    began = now()
    for _ in range(count):
        emit(event)
    spent = now() - began
    bus.settle(count)
    return spent * NS / count


def _time_texts(bus: Bus, text: str, messages: int) -> float:
    event = Note(text=text)
    began = now()
    for _ in range(messages):
        emit(event, timeout=PATIENCE)
    bus.settle(messages)
    return messages / ((now() - began) * NS)
