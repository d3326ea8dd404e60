"""What each worker process occupies beside its siblings, after a fork."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping

import django

from benchmarks.curves.space import start_consumers
from benchmarks.memory import proportional
from benchmarks.project import STOCK_APPS, configure

CONSUMERS = 30


def forked(count: int, *, with_app: bool) -> Callable[[], Mapping[str, float]]:
    """Fork so many workers from one that has loaded all, as a preloading server does.

    With the app, each has consumers running and has handled messages.
    """

    def run() -> Mapping[str, float]:
        configure([*STOCK_APPS, *(["django_gomq"] if with_app else [])])
        django.setup()
        ready, is_ready = os.pipe()
        leave, may_leave = os.pipe()
        ends = (is_ready, leave, may_leave)
        workers = [_fork(ends, with_app=with_app) for _ in range(count)]
        for _ in workers:
            os.read(ready, 1)
        sizes = [proportional(pid) for pid in workers]
        os.close(may_leave)
        for pid in workers:
            os.waitpid(pid, 0)
        return {"pss": statistics.mean(sizes)}

    return run


def _fork(ends: tuple[int, int, int], *, with_app: bool) -> int:
    """Fork a worker that says when it is ready, and stays until it may leave."""
    is_ready, leave, may_leave = ends
    pid = os.fork()
    if pid:
        return pid
    os.close(may_leave)  # so that the parent's end is the last one
    if with_app:
        start_consumers(CONSUMERS)
    os.write(is_ready, b".")
    os.read(leave, 1)
    os._exit(0)
