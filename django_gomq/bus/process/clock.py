"""The clock that the bus goes by, which no test of a program can stop."""

from __future__ import annotations

import time


class Clock:
    """Real time, for waiting, ages and durations.

    freezegun and its like put their own functions into ``time`` and into modules that
    hold those of ``time``. In a class they do not look; a bus whose clock stands still
    would neither retry nor come to the end of a drain.
    """

    monotonic = staticmethod(time.monotonic)
    """Seconds since some moment, whatever becomes of the wall clock."""
