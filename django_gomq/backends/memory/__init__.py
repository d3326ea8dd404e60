"""Bounded queues inside the process: the default backend."""

from __future__ import annotations

from .backend import MemoryBackend

__all__ = ["MemoryBackend"]
