"""Configures gunicorn to let a worker that it aborted write down what it did."""

from __future__ import annotations

import os
import time
from typing import Any

SECONDS = 60.0


def worker_abort(worker: Any) -> None:
    """Let the next look at the worker, which would kill it, be in a minute."""
    at = time.monotonic() + SECONDS
    os.utime(worker.tmp.fileno(), (at, at))
