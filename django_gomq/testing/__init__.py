"""Tests of users: capture what was emitted, run handlers, or run the whole bus."""

from __future__ import annotations

from django_gomq.bus.delivery import Ack, DeadLettered, Dropped, Outcome, RetryAfter

from .captured import (
    CapturedEvents,
    assert_emitted,
    assert_not_emitted,
    assert_nothing_emitted,
    capture,
)
from .handling import HandledMessage, assert_listening, call
from .inline import InlineEvents, inline
from .kit import Gomq, GomqTestMixin
from .live import LiveBus, live

__all__ = [
    "Ack",
    "CapturedEvents",
    "DeadLettered",
    "Dropped",
    "Gomq",
    "GomqTestMixin",
    "HandledMessage",
    "InlineEvents",
    "LiveBus",
    "Outcome",
    "RetryAfter",
    "assert_emitted",
    "assert_listening",
    "assert_not_emitted",
    "assert_nothing_emitted",
    "call",
    "capture",
    "inline",
    "live",
]
