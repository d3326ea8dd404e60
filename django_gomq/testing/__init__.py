"""Tests of users: capture what was emitted; no query, no thread, no queue."""

from __future__ import annotations

from .capture import CapturedEvents, assert_emitted, capture
from .modes import live

__all__ = ["CapturedEvents", "assert_emitted", "capture", "live"]
