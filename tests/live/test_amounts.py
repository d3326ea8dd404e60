from __future__ import annotations

import pytest

from django_gomq.live import amounts


def plain(text: str) -> str:
    """Return a text with common spaces."""
    return text.replace("\N{NARROW NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "\N{EN DASH}"),
        (0, "0 s"),
        (-1, "0 s"),
        (0.000_25, "250 µs"),
        (0.0053, "5.3 ms"),
        (0.0994, "99 ms"),
        (1.25, "1.2 s"),
        (39.4, "39 s"),
        (180, "3 min"),
        (7_200, "2 h"),
        (864_000, "10 d"),
    ],
)
def test_a_time_span_has_the_unit_that_reads_best(
    seconds: float | None, text: str
) -> None:
    assert plain(amounts.duration(seconds)) == text


def test_numbers_are_short() -> None:
    assert plain(amounts.count(12_345)) == "12 345"
    assert [amounts.rate(one) for one in (0.01, 0.2, 9.96)] == ["0", "0.2", "10.0"]
    assert plain(amounts.rate(2_500.4)) == "2 500"
    assert plain(amounts.share(1, 40)) == "2.5 %"
    assert [amounts.share(0, 40), amounts.share(1, 0)] == ["0", "0"]
    assert amounts.plural(1, "process", "es") == "1 process"
    assert amounts.plural(2, "process", "es") == "2 processes"
