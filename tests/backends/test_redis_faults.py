"""Redis goes away, in every way, under load: nothing that was accepted is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from django_gomq.backends.redis import reading
from django_gomq.backends.redis.entries import place_of
from django_gomq.backends.redis.server import AwayError
from django_gomq.bus.errors import PublishError, PublishUnknownError
from django_gomq.bus.message import Message
from django_gomq.bus.wire import decode_structured, encode_structured
from django_gomq.testing.conformance.site import (
    CONSUMER,
    EVENT,
    LONG,
    Notes,
    Process,
    Site,
    wait_until,
)
from tests.backends import fault_table
from tests.backends.redis_servers import RedisHarness, hurry, make_older

COUNT = int(os.environ.get("GOMQ_FAULT_MESSAGES", "2000"))
"""Events under way in a fault."""
STREAM = f"{{gomq}}:e:{EVENT}"
OTHER = "suite.other"


def cut_until_it_is_felt(process: Process) -> None:
    """Cut every connection; again where nothing was asked of the server just then."""

    def is_felt() -> bool:
        RedisHarness.proxy.cut()
        return any(call.failed for call in process.calls.of("fetch", "wait"))

    wait_until(is_felt)


class Load:
    """Publishes numbers one by one, and notes what became of each."""

    def __init__(self, process: Process) -> None:
        self.accepted: list[int] = []
        self.unknown: set[int] = set()
        self._process = process
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for number in range(COUNT):
            message: Message[Any] = Message(EVENT, b"%d" % number)
            while True:
                try:
                    self._process.broker.publish(message)
                except PublishUnknownError:
                    self.unknown.add(number)
                    break
                except PublishError:
                    time.sleep(0.005)  # as a site that tries again
                else:
                    self.accepted.append(number)
                    break

    def wait_for(self, count: int) -> None:
        wait_until(lambda: len(self.accepted) + len(self.unknown) >= count)

    def end(self) -> None:
        self._thread.join()

    def wait_until_handled(self, notes: Notes) -> float:
        """Return after how many seconds something was handled that comes from now on.

        It is published, and accepted, in that time.
        """
        began, done = time.monotonic(), len(self.accepted)
        wait_until(
            lambda: self.accepted[done:] and self.accepted[done] in notes.numbers
        )
        return time.monotonic() - began


def restart() -> None:
    RedisHarness.server.stop()
    RedisHarness.server.start()


def kill() -> None:
    RedisHarness.server.kill()
    RedisHarness.server.start()


def cut() -> None:
    RedisHarness.proxy.cut()


def swallow() -> None:
    """Let nothing through for longer than who is in a hurry waits."""
    RedisHarness.proxy.fall_silent()
    time.sleep(2.5)
    RedisHarness.proxy.speak()


FAULTS: Mapping[str, Callable[[], None]] = {
    "the server is stopped and started again": restart,
    "the server is killed and started again": kill,
    "every connection is cut": cut,
    "nothing comes through for 2.5 s": swallow,
}


@pytest.mark.parametrize("name", FAULTS)
def test_no_accepted_message_is_lost(
    redis_site: Site,
    redis_version: str,
    name: str,
    record_property: Callable[[str, object], None],
) -> None:
    notes, seconds = Notes(), 0.0
    one, two = redis_site.process(), redis_site.process()
    web = redis_site.process(may_start=lambda: False)
    for process in (one, two):
        process.consume(notes, concurrency=2)
    for process in (one, two, web):
        hurry(process, 2.0)
    load = Load(web)

    for part in (COUNT // 3, COUNT // 2):
        load.wait_for(part)
        FAULTS[name]()
        seconds = max(seconds, load.wait_until_handled(notes))
    load.end()

    wait_until(lambda: set(load.accepted) <= set(notes.numbers))
    for process in (one, two):
        process.wait_until_quiet()
    handled = Counter(notes.numbers)
    assert set(handled) <= set(load.accepted) | load.unknown
    assert len(load.accepted) + len(load.unknown) == COUNT
    stats = [process.stats() for process in (one, two)]
    # What ended in a fault is told again once the server is back. On a busy machine a
    # process may not extend its leases in time.
    assert sum(each.succeeded for each in stats) == len(handled)
    assert handled.total() - len(handled) <= sum(each.lost_leases for each in stats)
    line = fault_table.line(
        redis_version,
        name,
        accepted=len(load.accepted),
        unknown=len(load.unknown),
        handled=notes.numbers,
        seconds=seconds,
    )
    record_property(fault_table.PROPERTY, line)


WORKER = """
import sys, time
from django.conf import settings
settings.configure()
from django_gomq.backends.redis import RedisBackend
from django_gomq.bus.broker import Broker
port, path = int(sys.argv[1]), sys.argv[2]

def handle(message):
    time.sleep(0.002)
    with open(path, "ab", buffering=0) as file:
        file.write(message.body + b"\\n")

url = f"redis://127.0.0.1:{port}/0"
broker = Broker(lambda: RedisBackend(url=url, lease=1.0))
broker.consume(["suite.happened"], handler=handle, name="suite.counter", concurrency=4)
broker.start()
print("up", flush=True)
time.sleep(600)
"""


def test_what_a_killed_worker_held_is_handled_by_another(
    redis_site: Site,
    redis_client: Any,
    redis_version: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    process, path = redis_site.process(may_start=lambda: False), tmp_path / "handled"
    process.broker.consume([EVENT], print, name=CONSUMER)
    process.broker.setup()
    path.touch()

    def handled() -> list[int]:
        return list(map(int, path.read_text().split()))

    def start() -> subprocess.Popen[bytes]:
        port = str(RedisHarness.proxy.port)
        command = [sys.executable, "-c", WORKER, port, str(path)]
        worker = subprocess.Popen(
            command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
        )
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"up\n"
        return worker

    workers = [start(), start()]
    try:
        for first in range(0, COUNT, 200):  # each within the server's limit
            process.send_many(range(first, min(first + 200, COUNT)))
        wait_until(lambda: len(handled()) > COUNT / 4)
        workers[0].send_signal(signal.SIGKILL)
        workers[0].wait()
        began, held = time.monotonic(), held_by(redis_client, workers[0].pid)

        wait_until(lambda: held <= set(handled()))
        seconds = time.monotonic() - began
        wait_until(lambda: set(handled()) == set(range(COUNT)))
        line = fault_table.line(
            redis_version,
            "one of two workers is killed, with a lease of 1 s",
            accepted=COUNT,
            unknown=0,
            handled=handled(),
            seconds=seconds,
        )
        record_property(fault_table.PROPERTY, line)
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def held_by(client: Any, pid: int) -> set[int]:
    """Return what the server has given to this process, and it has not settled."""
    pending = client.xpending_range(STREAM, CONSUMER, "-", "+", COUNT)
    ids = {
        each["message_id"]
        for each in pending
        if f"-{pid}-" in each["consumer"].decode()
    }
    events = (fields[b"event"] for name, fields in client.xrange(STREAM) if name in ids)
    return {
        int(decode_structured(event, max_body_bytes=2**20).message.body)
        for event in events
    }


def test_what_the_server_gave_and_nobody_saw_is_read_again_after_a_cut(
    redis_site: Site, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BLOCK_SECONDS", 4 * LONG)
    assert isinstance(redis_site.harness, RedisHarness)
    redis_site.harness.options["lease"] = 20 * LONG  # none ends meanwhile
    process, notes, proxy = redis_site.process(), Notes(), RedisHarness.proxy
    process.consume(notes)
    process.send(0)
    wait_until(lambda: process.stats().succeeded == 1)
    web = redis_site.process(may_start=lambda: False)
    redis_client.xadd(STREAM, {"event": envelope(web, 1)})
    wait_until(lambda: process.stats().succeeded == 2)
    wait_until(lambda: redis_client.info("clients")["blocked_clients"])

    proxy.fall_silent()
    try:
        redis_client.xadd(STREAM, {"event": envelope(web, 2)})
        wait_until(lambda: redis_client.xpending(STREAM, CONSUMER)["pending"] == 1)
        assert 2 not in notes.numbers
        proxy.cut()
    finally:
        proxy.speak()

    wait_until(lambda: 2 in notes.numbers)
    process.wait_until_quiet()
    assert notes.numbers == [0, 1, 2]


def test_what_could_not_be_given_back_is_read_again(
    redis_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, notes = redis_site.process(), Notes()
    process.consume(notes, capacity=1)
    backend: Any = process.broker.backend
    release, failures = backend._settling.release, iter([True])

    def fail_once(tokens: Any, limit: float) -> None:
        backend._held.difference_update(map(place_of, tokens))
        if next(failures, False):
            raise AwayError("cut")
        release(tokens, limit)

    monkeypatch.setattr(backend._settling, "release", fail_once)
    accept = process.broker._current_runtime().inbox.accept
    full = iter([True])
    monkeypatch.setattr(
        process.broker._current_runtime().inbox,
        "accept",
        lambda name, each: each if next(full, False) else accept(name, each),
    )

    process.send(1)

    wait_until(lambda: notes.numbers == [1])


def test_what_is_in_a_handler_is_not_read_again_after_a_cut(redis_site: Site) -> None:
    process, gate = redis_site.process(), redis_site.gate(0, 1)
    process.consume(gate, concurrency=3)
    process.send(0)
    wait_until(lambda: len(gate.entered) == 1)
    process.send(1)
    wait_until(lambda: len(gate.entered) == 2)

    cut_until_it_is_felt(process)
    process.send(2)
    wait_until(lambda: process.stats().succeeded == 1)

    gate.open()
    wait_until(lambda: process.stats().succeeded == 3)
    assert sorted(gate.entered) == [(number, 1) for number in range(3)]


def test_what_was_read_before_a_crash_of_the_server_does_not_wait_after_it(
    redis_site: Site,
) -> None:
    process, told = redis_site.process(), list[BaseException]()
    process.consume(Notes())
    process.send_many(range(20))
    wait_until(lambda: process.stats().succeeded == 20)
    backend: Any = process.broker.backend
    assert backend.prune(0.0) > 0
    process.close()

    kill()
    web = redis_site.process(may_start=lambda: False)
    web.broker.consume([EVENT], print, name=CONSUMER)
    web.send_many(range(3))
    backend = web.broker.backend
    backend._context.inbox.report = told.append
    sample = backend.stats()

    assert sample.consumers[CONSUMER].ready == 3
    assert told == []


def test_what_comes_on_a_read_that_nobody_waits_for_is_read_again(
    redis_site: Site, redis_client: Any
) -> None:
    process, notes = redis_site.process(), Notes()
    process.consume(notes)
    process.send(0)
    wait_until(lambda: process.stats().succeeded == 1)
    (name,) = (each["name"] for each in redis_client.xinfo_consumers(STREAM, CONSUMER))

    # At once, so that none of its own reads is in between.
    with redis_client.pipeline(transaction=True) as together:
        together.xadd(STREAM, {"event": envelope(process, 1)})
        together.xreadgroup(CONSUMER, name, {STREAM: ">"})
        together.execute()

    wait_until(lambda: notes.numbers == [0, 1])


def test_what_one_consumer_still_has_in_work_is_its_own_after_a_cut(
    redis_site: Site,
) -> None:
    process, gate = redis_site.process(), redis_site.gate(0)
    process.consume(gate, concurrency=2)
    process.consume(Notes(), name=OTHER)
    process.send(0)
    wait_until(lambda: process.stats(OTHER).succeeded == 1 and gate.entered)

    cut_until_it_is_felt(process)
    process.send(1)
    wait_until(lambda: process.stats().succeeded == 1)

    gate.open()
    process.wait_until_quiet()
    assert sorted(gate.entered) == [(0, 1), (1, 1)]


def test_an_entry_that_somebody_deleted_is_told(
    redis_site: Site, redis_client: Any
) -> None:
    victim, gate = redis_site.process(), redis_site.gate()
    victim.consume(gate)
    victim.send(1)
    wait_until(lambda: gate.entered)
    victim.cut()
    make_older(redis_client, STREAM.encode(), CONSUMER.encode(), 60.0)
    redis_client.xtrim(STREAM, maxlen=0, approximate=False)
    told: list[BaseException] = []
    other = redis_site.process()
    other.broker.consume([EVENT], print, name=CONSUMER)
    other.broker.setup()
    backend = other.broker.backend
    backend._context.inbox.report = told.append  # type: ignore[attr-defined]

    other.broker.start()

    wait_until(lambda: any("deleted at the server" in str(error) for error in told))


def envelope(process: Process, number: int) -> bytes:
    return encode_structured(Message(EVENT, b"%d" % number), source="suite")
