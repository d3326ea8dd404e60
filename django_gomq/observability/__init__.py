"""Observers, one folder each; loaded by dotted path."""

from __future__ import annotations
