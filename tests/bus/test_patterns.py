from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.patterns import Pattern

# Small enough to try everything; "a" is the beginning of "ab" on purpose.
SEGMENTS = ("a", "ab", "b")
TYPES = [".".join(parts) for n in (1, 2, 3) for parts in product(SEGMENTS, repeat=n)]
PATTERNS = [
    Pattern(text)
    for text in ("*", *TYPES, *(f"{name}.*" for name in TYPES if name.count(".") < 2))
]


def matches_by_segments(pattern: str, event_type: str) -> bool:
    """Say what a pattern means, with no thought of speed."""
    wanted, found = pattern.split("."), event_type.split(".")
    if wanted[-1] != "*":
        return wanted == found
    return len(found) >= len(wanted) and found[: len(wanted) - 1] == wanted[:-1]


def matching(pattern: Pattern) -> set[str]:
    return {name for name in TYPES if matches_by_segments(pattern.text, name)}


@pytest.mark.parametrize(
    ("pattern", "event_type", "expected"),
    [
        ("health.*", "health.record.saved", True),
        ("health.*", "health.record", True),
        ("health.*", "health", False),
        ("health.*", "healthy.record", False),
        ("health.record", "health.record", True),
        ("health.record", "health.record.saved", False),
        ("*", "health", True),
        ("*", "health.record.saved", True),
    ],
)
def test_a_star_stands_for_one_or_more_segments(
    pattern: str, event_type: str, expected: bool
) -> None:
    assert Pattern(pattern).matches(event_type) is expected


@given(
    st.sampled_from(PATTERNS),
    st.from_regex(r"(a|ab|b)(\.[abc_0]{1,3}){0,5}", fullmatch=True),
)
def test_a_pattern_matches_what_its_segments_say(
    pattern: Pattern, event_type: str
) -> None:
    expected = matches_by_segments(pattern.text, event_type)

    assert pattern.matches(event_type) == expected


def test_patterns_overlap_when_some_type_matches_both() -> None:
    wrong = [
        (one.text, other.text)
        for one, other in product(PATTERNS, repeat=2)
        if one.overlaps(other) != bool(matching(one) & matching(other))
    ]

    assert wrong == []


def test_a_pattern_covers_another_that_matches_nothing_more() -> None:
    wrong = [
        (one.text, other.text)
        for one, other in product(PATTERNS, repeat=2)
        if one.covers(other) != (matching(one) >= matching(other))
    ]

    assert wrong == []


def test_a_pattern_that_another_covers_is_more_specific() -> None:
    wrong = [
        (one.text, other.text)
        for one, other in product(PATTERNS, repeat=2)
        if one != other and one.covers(other) and other.specificity <= one.specificity
    ]

    assert wrong == []


def test_the_most_specific_pattern_is_the_greatest() -> None:
    texts = ["a.b.*", "*", "a.b.c", "a.*"]

    ordered = sorted(map(Pattern, texts), key=lambda one: one.specificity)

    assert [one.text for one in ordered] == ["*", "a.*", "a.b.*", "a.b.c"]


@pytest.mark.parametrize(
    ("text", "is_exact", "prefix"),
    [("a.b", True, "a.b"), ("a.*", False, "a."), ("*", False, "")],
)
def test_only_a_pattern_without_a_star_names_one_type(
    text: str, is_exact: bool, prefix: str
) -> None:
    pattern = Pattern(text)

    assert (pattern.is_exact, pattern.prefix) == (is_exact, prefix)


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", ".*", "**", "*.a", "*.*", "a*", "a.*.b", "a.**", "a.*.*", "a.* "),
        *("A.*", f"{'a' * 201}.*", None, 7, b"a.*"),
    ],
)
def test_any_other_use_of_a_star_is_refused(text: Any) -> None:
    with pytest.raises(ConfigurationError, match="no event type and no pattern"):
        Pattern(text)
