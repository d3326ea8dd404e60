"""A terminal that somebody reads all the while, as it holds little."""

from __future__ import annotations

import os
import pty
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.django_site.waiting import SECONDS


@contextmanager
def terminal() -> Iterator[tuple[int, list[str]]]:
    """Yield the descriptor that a program writes to, and what it has written so far."""
    main, end = pty.openpty()
    seen: list[str] = []

    def read() -> None:
        with suppress(OSError):  # nobody can write any more
            while piece := os.read(main, 4096):
                seen.append(piece.decode(errors="replace"))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield end, seen
    finally:
        os.close(end)
        reader.join(SECONDS)
        os.close(main)
