"""What the bus tells the log, and what it adds to the log of handlers; stdlib only."""

from __future__ import annotations

from .context import ContextFilter, ContextHook
from .hook import LogHook

__all__ = ["ContextFilter", "ContextHook", "LogHook"]
