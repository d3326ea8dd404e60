"""System checks: what is wrong or unwise, each with a stable id and a hint."""

from __future__ import annotations

from . import deployment, registrations

__all__ = ["deployment", "registrations"]
