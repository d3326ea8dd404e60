"""Spans for OpenTelemetry; imported only where tracing is on."""

from __future__ import annotations

from .hook import TracingHook, is_sdk_configured

__all__ = ["TracingHook", "is_sdk_configured"]
