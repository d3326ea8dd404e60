"""Tests of users: capture what was emitted; no query, no thread, no queue."""

from __future__ import annotations

from django_gomq.testing.capture import CapturedEvents, assert_emitted, capture
from django_gomq.testing.modes import live

__all__ = ["CapturedEvents", "assert_emitted", "capture", "live"]
