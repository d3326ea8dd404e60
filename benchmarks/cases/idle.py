"""What a process with consumers costs while nothing happens."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.project import set_up
from django_gomq import Message, get_broker

_SWITCHES = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE)


def idle(consumers: int, seconds: float) -> Callable[[], Mapping[str, float]]:
    """Start the consumers, have each handle one message, then look on for a while."""
    set_up()
    broker = get_broker()
    types = [f"bench.event_{number}" for number in range(consumers)]
    for event_type in types:
        broker.consume([event_type], lambda message: None, name=event_type)
    for event_type in types:
        broker.publish(Message(event_type))
    while not broker.stats().is_quiet:
        time.sleep(0.01)

    def run() -> Mapping[str, float]:
        switches, cpu = _count_switches(), time.process_time()
        time.sleep(seconds)
        cpu = time.process_time() - cpu
        return {
            "cpu": cpu / seconds,
            "switches": (_count_switches() - switches) / seconds,
            "threads": threading.active_count(),
        }

    return run


def _count_switches() -> int:
    """Return how often the threads went to sleep so far, this one left out."""
    own = str(threading.get_native_id())
    tasks = [task for task in Path("/proc/self/task").iterdir() if task.name != own]
    found = [_SWITCHES.search((task / "status").read_text()) for task in tasks]
    return sum(int(one[1]) for one in found if one)
