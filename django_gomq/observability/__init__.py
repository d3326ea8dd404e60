"""Observers, one folder each; loaded by dotted path, blind to one another."""

from __future__ import annotations
