"""Keeps coverage out of tests that raise exceptions at any moment.

Coverage measures with Python code under a lock of its own. The exception of a signal
handler that arrives there leaves that lock held: every thread waits for it for ever.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def untraced() -> Iterator[None]:
    """Measure nothing in this thread, nor in threads that start inside the block."""
    here, elsewhere = sys.gettrace(), threading.gettrace()
    threading.settrace(None)
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(here)
        threading.settrace(elsewhere)
