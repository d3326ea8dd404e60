"""A site with nothing to do: it wakes once a second, for all its consumers together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 3

# A process of its own: only then does every thread that wakes belong to the bus.
PROGRAM = f"""
import itertools, json, threading, time
from pathlib import Path
from django_gomq.bus.worker import worker
from django_gomq.bus.broker import Broker
from django_gomq.bus.message import Message
from django_gomq.backends.memory import MemoryBackend

worker.IDLE_SECONDS = 0.01

def count_wake_ups():
    lines = [
        line
        for status in Path("/proc/self/task").glob("*/status")
        for line in status.read_text().splitlines()
    ]
    return sum(int(one.split()[1]) for one in lines if one.startswith("voluntary"))

broker = Broker(MemoryBackend)
for number in range(30):
    broker.consume("a.b", lambda message: None, name=f"c{{number}}")
broker.publish(Message("a.b"))

ticks, told = [], threading.Event()

def tick():
    ticks.append((count_wake_ups(), time.process_time()))
    if len(ticks) == {SECONDS} + 3:
        told.set()

broker._current_runtime()._worker.timers.every_second(tick)
told.wait(100)
spans = [
    (after[0] - before[0], after[1] - before[1])
    for before, after in itertools.pairwise(ticks[2:])
]
print(json.dumps([*map(min, *spans), broker.stats().is_quiet]))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_thirty_idle_consumers_wake_up_once_a_second_in_all() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )

    wake_ups, cpu_seconds, is_quiet = json.loads(done.stdout)
    assert is_quiet
    # In the best second: a busy machine adds to the others.
    assert wake_ups <= 2  # a tick reads itself in its midst
    assert cpu_seconds < 0.01
