"""Signals to the main thread at chosen moments, where an interval timer is coarse."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable


class Shot:
    """A signal to the main thread, that many seconds after it was fired."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._trigger = threading.Lock()
        self._trigger.acquire()
        # Before anything is armed: to start a thread takes many steps.
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()
        self.fire: Callable[[], None] = self._trigger.release

    def _wait(self) -> None:
        self._trigger.acquire()
        threading.Event().wait(self._seconds)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGVTALRM)

    def land(self) -> None:
        """Wait until the signal came, which may be after what it was to hit."""
        self._thread.join()
        signal.pthread_sigmask(signal.SIG_BLOCK, ())  # runs the handler if it did not
