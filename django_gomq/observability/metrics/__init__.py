"""What the bus counted, for Prometheus; read when it is scraped, never per message."""

from __future__ import annotations

from .collector import BusCollector
from .page import render
from .registration import install, uninstall

__all__ = ["BusCollector", "install", "render", "uninstall"]
