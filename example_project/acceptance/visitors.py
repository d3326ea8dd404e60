"""Other visitors of the site, from the access log.

Whoever opens the printed address while the traffic runs emits events too. The driver
cannot count those, so the server's access log tells them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from clinic import told


def others(lines: Iterable[str], driver: str) -> Counter[tuple[str, str]]:
    """Add up what was told to everyone but `driver`, by event and state."""
    from_header: Counter[tuple[str, str]] = Counter()
    for line in lines:
        header, _, agent = line.rstrip("\n").partition("\t")
        if agent != driver and header != "-":
            from_header += told.read(header)
    return from_header
