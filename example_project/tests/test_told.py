"""What an answer tells survives the way through a header."""

from __future__ import annotations

from collections import Counter

from clinic import told


def test_what_is_written_can_be_read() -> None:
    counts = Counter({("page.viewed", "accepted"): 1, ("patient.created", "sent"): 20})

    assert told.read(told.write(counts)) == counts


def test_an_absent_header_tells_nothing() -> None:
    assert told.read("") == Counter()
