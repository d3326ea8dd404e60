"""What the bus counted, for Prometheus; read when it is scraped, never per message."""

from __future__ import annotations

from .collector import BusCollector
from .directory import check_directory
from .page import render
from .registration import install, uninstall
from .serving import end, ensure_served, serve_on, stop_serving, tick

__all__ = [
    "BusCollector",
    "check_directory",
    "end",
    "ensure_served",
    "install",
    "render",
    "serve_on",
    "stop_serving",
    "tick",
    "uninstall",
]
