"""A site whose workers are real processes, on the database of a test."""

from __future__ import annotations

from typing import Final

LEASE: Final = 60.0
"""Seconds: no process is taken for dead but one whose beats a test sets back."""
THREADS: Final = 2
"""Of a worker, so many handlers run at once."""
SHORT_LEASE: Final = 10.0
"""Seconds, for who waits until one is over."""
