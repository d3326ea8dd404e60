"""System checks; to import this registers them."""

from __future__ import annotations

from . import recorded, spilled, system

__all__ = ["recorded", "spilled", "system"]
