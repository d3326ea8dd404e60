"""Keeps messages in the project's own database: an outbox and durable consumers."""

from __future__ import annotations

from .backend import DatabaseBackend

__all__ = ["DatabaseBackend"]
