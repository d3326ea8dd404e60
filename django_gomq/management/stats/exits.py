"""The exit codes of ``gomq stats``, fit for probes."""

from __future__ import annotations

from typing import Final

FINE: Final = 0
OVER: Final = 1
"""Something is above a limit."""
CANNOT_READ: Final = 2
