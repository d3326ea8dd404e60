"""How soon an event of one process is in a handler of another, on PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.servers.handled import Timed, stamped
from benchmarks.servers.running import new_site, reopen_site
from benchmarks.sink import TYPE, now, spread
from django_gomq.backends.database import DatabaseBackend
from django_gomq.bus.broker import Broker

PAUSE = 0.06  # seconds between two emits: a process sends one NOTIFY in 50 ms
Metrics = Mapping[str, float]


def ours(vendor: str, paced: int, *, notify: bool) -> Callable[[], Metrics]:
    """Emit in one process and handle in this one; with NOTIFY, or by looking alone."""
    entry = new_site(vendor, "django_gomq")
    order = json.dumps({"entry": entry, "notify": notify})
    # Its end of our pipe ends it.
    emitter = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "benchmarks.servers.between", order],
        stdin=subprocess.PIPE,
        text=True,
    )
    return lambda: _run(emitter, paced, notify=notify)


def _run(emitter: subprocess.Popen[str], paced: int, *, notify: bool) -> Metrics:
    sink, broker = Timed(), _broker(notify=notify)
    broker.consume(
        [TYPE], lambda message: sink.take(message.data["total"]), name="bench.other"
    )
    broker.setup()
    broker.start()
    for number in range(paced + 1):
        print(file=emitter.stdin, flush=True)
        sink.wait(number + 1)
        time.sleep(PAUSE)
    broker.close(timeout=10)
    median, tail = spread(sink.delays[1:])  # for the first one it has to connect
    return {"p50": median, "p99": tail}


def _broker(*, notify: bool) -> Broker:
    return Broker(lambda: DatabaseBackend(notify=notify), may_start=lambda: False)


def emit_when_asked(entry: Mapping[str, Any], *, notify: bool) -> None:
    """Publish one event, with the time in it, for each line that is read."""
    reopen_site(entry, "django_gomq")
    broker = _broker(notify=notify)
    for _ in sys.stdin:
        broker.publish(stamped(now()))
    broker.close(timeout=1)


if __name__ == "__main__":
    emit_when_asked(**json.loads(sys.argv[1]))
