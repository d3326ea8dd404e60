"""Threads that change places in the midst of a line, far more often than by chance."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any, Final

from django_gomq.backends.memory import buffer, dispatcher, publisher, queues
from django_gomq.bus import counts, delivery
from django_gomq.bus.channels import channel, key_order, permits, subscription
from django_gomq.bus.process import timers
from django_gomq.bus.worker import (
    async_loop,
    processor,
    ready_queue,
    runner,
    settlement_batcher,
    settler,
    worker,
)
from tests.bus.waiting import fast_switching

HOT: Final = (
    async_loop,
    buffer,
    channel,
    counts,
    delivery,
    dispatcher,
    key_order,
    permits,
    processor,
    publisher,
    queues,
    ready_queue,
    runner,
    settlement_batcher,
    settler,
    subscription,
    timers,
    worker,
)
"""What threads share on the way of a message."""


@contextmanager
def interleaved(*modules: ModuleType, chance: float = 0.02) -> Iterator[None]:
    """Let threads that start inside give way between any two steps of these modules.

    The interpreter asks a thread to give way some hundred times a second, whatever its
    interval: a race of two bytecodes is lost once in a million. Measures no coverage.
    """
    dice, places = random.Random(0), {id(vars(module)) for module in modules}

    def enter(frame: FrameType, event: str, arg: Any) -> Any:
        if id(frame.f_globals) not in places:
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return give_way

    def give_way(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode" and dice.random() < chance:
            time.sleep(0)  # it lets go of the interpreter's lock, and waits for nothing
        return give_way

    before, here = threading.gettrace(), sys.gettrace()
    threading.settrace(enter)
    try:
        with fast_switching():
            yield
    finally:
        threading.settrace(before)
        sys.settrace(here)
