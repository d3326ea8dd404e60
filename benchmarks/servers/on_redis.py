"""What an event costs on Redis, and how fast it is handled: ours, raw, and peers'."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import django
import redis

from benchmarks.project import configure
from benchmarks.servers.emits import BULK, made
from benchmarks.servers.handled import PAUSE, Timed, data_at, pace, stamped
from benchmarks.servers.redis_tasks import PEERS, RECORD
from benchmarks.servers.running import ADDRESSES
from benchmarks.sink import BODY, DATA, NS, PATIENCE, TYPE, now, spread
from django_gomq import Message, emit, emit_many
from django_gomq.backends.redis import RedisBackend
from django_gomq.bus.broker import Broker

BACKEND = "django_gomq.backends.redis.RedisBackend"
STREAM = f"{{gomq}}:e:{TYPE}"
BATCH = 100  # entries of one raw read
Metrics = Mapping[str, float]
Client = Any


def _database() -> tuple[str, Client]:
    """Return the address of a database of its own, which is empty, and a client."""
    server = json.loads(os.environ[ADDRESSES])["redis"]["url"]
    with redis.Redis.from_url(f"{server}/0") as counter:
        number = counter.incr("databases")
    url = f"{server}/{number}"
    return url, redis.Redis.from_url(url)


class _Meter:
    """Measures steps of a run: seconds, and those of processors here and there."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.found: dict[str, float] = {}

    def _now(self) -> tuple[float, float, float]:
        told = self._client.info("cpu")
        # Of the one thread that runs commands.
        parts = ("used_cpu_user_main_thread", "used_cpu_sys_main_thread")
        server = sum(float(told[part]) for part in parts)
        return time.perf_counter(), time.process_time(), server

    @contextmanager
    def measuring(self, name: str, events: int) -> Iterator[None]:
        """Note what each of these events takes in the step."""
        before = self._now()
        yield
        spent = [
            (after - was) / events
            for after, was in zip(self._now(), before, strict=True)
        ]
        names = (name, f"{name}_here", f"{name}_server")
        self.found.update(zip(names, spent, strict=True))


def _write(
    meter: _Meter, one: Callable[[], object], many: Callable[[int], object], count: int
) -> None:
    with meter.measuring("own", count):
        for _ in range(count):
            one()
    calls = max(count // 100, 1)
    with meter.measuring("bulk", calls * BULK):
        for _ in range(calls):
            many(BULK)


# ------------------------------------------------------------------ this project


def ours(count: int, paced: int, *, writes: bool = False) -> Callable[[], Metrics]:
    """Emit typed events by the default broker, then handle all in a second one."""
    url, client = _database()
    entry = {"BACKEND": BACKEND, "OPTIONS": {"url": url}}
    gomq = {"BROKERS": {"default": entry}, "TRACING": {"ENABLED": False}}
    configure(["django_gomq"], gomq=gomq)
    django.setup()
    return lambda: _run(url, client, count, paced, writes=writes)


def _run(url: str, client: Client, count: int, paced: int, *, writes: bool) -> Metrics:
    client.flushdb()
    sink, is_filled = Timed(), threading.Event()
    broker = Broker(partial(RedisBackend, url=url), may_start=is_filled.is_set)
    with tempfile.TemporaryFile(buffering=0) as file:

        def handle(message: Any) -> None:
            total = message.data["total"]
            if writes:
                file.write(RECORD.pack(0, now()))
            sink.take(total)

        broker.consume([TYPE], handle, name="bench.consumer")
        broker.setup()
        meter = _Meter(client)
        _write(
            meter,
            lambda: emit(made()),
            lambda size: emit_many([made() for _ in range(size)]),
            count,
        )
        waiting = client.xlen(STREAM)
        kept = client.memory_usage(STREAM, samples=0) / waiting
        is_filled.set()
        with meter.measuring("each", waiting):
            broker.start()
            sink.wait(waiting)
        handled = {"handled": sink.rate(), "kept": kept}
        delays = pace(sink, lambda moment: broker.publish(stamped(moment)), paced)
        broker.close(timeout=10)
    _check(broker, client, waiting + paced)
    return {**meter.found, **handled, **delays}


def _check(broker: Broker, client: Client, sent: int) -> None:
    """Raise RuntimeError unless each was handled, and acknowledged, once by each."""
    counts = [one.succeeded for one in broker.stats().consumers.values()]
    streams = client.scan_iter(match="{gomq}:e:*")
    groups = [one for each in streams for one in client.xinfo_groups(each)]
    if set(counts) != {sent} or any(group["pending"] for group in groups):
        raise RuntimeError(f"{counts} of {sent} were handled: {groups}")


def fanned(types: int, consumers: int, messages: int) -> Callable[[], Metrics]:
    """Handle what waits in so many streams, each event by so many consumers."""
    url, client = _database()
    names = [f"{TYPE}_{number}" for number in range(types)]

    def run() -> Metrics:
        client.flushdb()
        sink, is_filled = Timed(), threading.Event()
        broker = Broker(partial(RedisBackend, url=url), may_start=is_filled.is_set)
        for number in range(consumers):
            broker.consume(
                names,
                lambda message: sink.take(message.data["total"]),
                name=f"bench.consumer_{number}",
            )
        broker.setup()
        for start in range(0, messages, BULK):
            numbers = range(start, min(start + BULK, messages))
            broker.publish_many(
                [Message(names[each % types], BODY) for each in numbers]
            )
        is_filled.set()
        meter = _Meter(client)
        with meter.measuring("each", messages * consumers):
            broker.start()
            sink.wait(messages * consumers)
        broker.close(timeout=10)
        _check(broker, client, messages)
        return {**meter.found, "handled": sink.rate() / consumers}

    return run


# ------------------------------------------------------------------ the client alone


def raw(count: int, paced: int) -> Callable[[], Metrics]:
    """Write, read and acknowledge entries of the same width by redis-py alone."""
    url, client = _database()
    entry = {"event": BODY + b" " * 250}  # as wide as an envelope

    def many(size: int) -> None:
        pipeline = client.pipeline(transaction=False)
        for _ in range(size):
            pipeline.xadd("raw", entry)
        pipeline.execute()

    def run() -> Metrics:
        client.flushdb()
        client.xgroup_create("raw", "group", id="$", mkstream=True)
        meter = _Meter(client)
        _write(meter, lambda: client.xadd("raw", entry), many, count)
        waiting = left = client.xlen("raw")
        with meter.measuring("each", waiting):
            while left:
                rows = _read(client)
                _acknowledge(client, rows)
                left -= len(rows)
        handled = {"handled": 1 / meter.found["each"]}
        return {**meter.found, **handled, **_raw_delays(url, client, paced)}

    return run


def _read(client: Client, block: int | None = None) -> list[Any]:
    found = client.xreadgroup("group", "me", {"raw": ">"}, count=BATCH, block=block)
    return found[0][1] if found else []


def _acknowledge(client: Client, rows: Sequence[Any]) -> None:
    if rows:
        client.xack("raw", "group", *[name for name, _ in rows])


def _raw_delays(url: str, client: Client, paced: int) -> Metrics:
    """Return how long a blocked reader waits for what another connection writes."""
    sink, is_over = Timed(), threading.Event()

    def read() -> None:
        with redis.Redis.from_url(url) as reader:
            while not is_over.is_set():
                rows = _read(reader, block=50)
                for _, fields in rows:
                    sink.take(int(fields[b"sent"]))
                _acknowledge(reader, rows)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    found = pace(sink, lambda moment: client.xadd("raw", {"sent": moment}), paced)
    is_over.set()
    thread.join()
    return found


# ------------------------------------------------------------------ peers


class _Worker:
    """A worker in a process of its own, which stands still unless it is let run."""

    def __init__(self, name: str, url: str) -> None:
        self._file = Path(tempfile.mkstemp()[1])  # in the folder of the case
        module = "benchmarks.servers.redis_tasks"
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", module, name, url, str(self._file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def let_run(self) -> None:
        """Have it go on."""
        self._process.send_signal(signal.SIGCONT)

    def halt(self) -> None:
        """Have it stand still, and forget what it did."""
        self._process.send_signal(signal.SIGSTOP)
        os.truncate(self._file, 0)

    def wait(self, count: int) -> None:
        """Wait until so many tasks ran. Raises TimeoutError."""
        deadline = time.monotonic() + PATIENCE
        while (size := self._file.stat().st_size) < count * RECORD.size:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise TimeoutError(f"{size // RECORD.size} of {count} were handled")
            time.sleep(0.001)

    def records(self) -> list[tuple[int, int]]:
        """Return when each was sent, and when it ran."""
        return list(RECORD.iter_unpack(self._file.read_bytes()))


def peer(name: str, count: int, paced: int) -> Callable[[], Metrics]:
    """Enqueue while its worker stands still, let it work that off, then pace."""
    url, _ = _database()
    enqueue = PEERS[name](url).enqueue
    worker = _Worker(name, url)
    enqueue(DATA | {"total": now()})
    worker.wait(1)  # it has started
    worker.halt()

    def run() -> Metrics:
        began = now()
        for _ in range(count):
            enqueue(data_at(0))
        own = (now() - began) * NS / count
        worker.let_run()
        try:
            worker.wait(count)
            ran = sorted(moment for _, moment in worker.records())
            rate = (count - 1) / ((ran[-1] - ran[0]) * NS)
            for number in range(count + 1, count + paced + 1):
                enqueue(data_at(now()))
                worker.wait(number)
                time.sleep(PAUSE)
            delays = [ran - sent for sent, ran in worker.records()[count:]]
        finally:
            worker.halt()
        median, tail = spread(delays)
        return {"own": own, "handled": rate, "p50": median, "p99": tail}

    return run
