"""Celery's settings for a broker that is a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

QUEUE = "queue"


def settings(folder: Path, *, outbox: str = QUEUE) -> dict[str, Any]:
    """Return settings to read from the queue, and to write into the outbox."""
    for name in (QUEUE, outbox, "control", "results"):
        (folder / name).mkdir(exist_ok=True)
    return {
        "broker_url": "filesystem://",
        "broker_transport_options": {
            "data_folder_in": str(folder / QUEUE),
            "data_folder_out": str(folder / outbox),
            "control_folder": str(folder / "control"),
            "polling_interval": 0.05,
        },
        "result_backend": f"file://{folder / 'results'}",
        "worker_prefetch_multiplier": 1,
    }
