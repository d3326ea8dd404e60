"""Whether an event loop still comes round, seen from outside; it knows no handler."""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from threading import Thread
from types import FrameType
from typing import Final

BLOCKED_SECONDS: Final = 1.0
"""A loop that has not come round for so long is blocked."""


class Pulse:
    """Calls into a loop now and then, and knows how long the answer is due.

    ``lag`` may be read from any thread; ``beat`` is for one, and does not block.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: Thread) -> None:
        self._loop = loop
        self._thread = thread
        self._asked: float | None = None
        self._is_told = False

    @property
    def lag(self) -> float:
        """For how many seconds the loop has not come round, as far as is known."""
        asked = self._asked
        return 0.0 if asked is None else time.monotonic() - asked

    def beat(self) -> bool:
        """Ask for the next answer; return, once, whether the last one is overdue."""
        if self._asked is None:
            self._asked = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._answer)
            except RuntimeError:
                self._asked = None  # the loop has ended
            return False
        is_overdue = self.lag >= BLOCKED_SECONDS and not self._is_told
        self._is_told = self._is_told or is_overdue
        return is_overdue

    def _answer(self) -> None:
        self._asked = None
        self._is_told = False

    def where(self) -> str:
        """Return what the loop runs now: its innermost calls, the last one first."""
        ident = self._thread.ident
        frame = sys._current_frames().get(ident) if ident is not None else None  # noqa: SLF001 - documented
        return " < ".join(_describe(frame)) if frame is not None else "no longer known"

    def task(self) -> str | None:
        """Return the name of the task that the loop is in now."""
        task = asyncio.current_task(self._loop)
        return None if task is None else task.get_name()


def _describe(frame: FrameType, most: int = 3) -> list[str]:
    calls = traceback.extract_stack(frame)[: -most - 1 : -1]
    return [f"{one.name} ({one.filename}:{one.lineno})" for one in calls]
