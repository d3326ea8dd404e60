"""What the bus counted, for Prometheus; read when it is scraped, never per message."""

from __future__ import annotations

from django_gomq.observability.metrics.multiprocess.files import check_directory

from .collector import BusCollector
from .http import end, ensure_served, serve_on, stop_serving, tick
from .registration import install, uninstall
from .single_flight import all_processes
from .text import render

__all__ = [
    "BusCollector",
    "all_processes",
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
