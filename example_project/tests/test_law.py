"""The law is checked per consumer, from the metrics alone."""

from __future__ import annotations

import pytest

from acceptance.law import check_law, consumers, left, standing
from acceptance.scrape import Scrape, parse
from tests.metrics_text import QUIET


def changed(line: str, value: int) -> Scrape:
    """Return the quiet scrape with one sample replaced or added."""
    kept = [old for old in QUIET.splitlines() if not old.startswith(f"{line} ")]
    return parse("\n".join([*kept, f"{line} {value}", ""]))


def test_a_quiet_bus_obeys_the_law() -> None:
    checks = check_law(parse(QUIET))

    assert [check.subject for check in checks] == ["audit.trail", "laboratory.analysis"]
    assert all(check.holds for check in checks)


def test_a_pattern_consumer_is_held_to_the_sum_of_its_events() -> None:
    (audit, _) = check_law(parse(QUIET))

    assert audit.left_value == 14
    assert audit.right_value == 14


@pytest.mark.parametrize(
    "name",
    [
        "gomq_channel_depth",
        "gomq_messages_scheduled",
        "gomq_messages_in_flight",
        "gomq_messages_dead_lettered_total",
    ],
)
def test_a_message_too_many_breaks_the_law_of_its_consumer(name: str) -> None:
    line = f'{name}{{broker="default",consumer="laboratory.analysis"}}'

    broken = [c.subject for c in check_law(changed(line, 9)) if not c.holds]

    assert broken == ["laboratory.analysis"]


@pytest.mark.parametrize("name", ["gomq_queue_depth", "gomq_messages_delayed"])
def test_what_the_queue_holds_was_not_dispatched(name: str) -> None:
    line = f'{name}{{broker="default",event="health.record.saved"}}'

    checks = check_law(changed(line, 1))

    assert [check.left_value for check in checks] == [13, 9]


def test_a_bus_is_quiet_when_nothing_is_on_its_way() -> None:
    busy = changed('gomq_messages_delayed{broker="default",event="page.viewed"}', 3)

    assert standing(parse(QUIET)) == 0
    assert standing(busy) == 3


def test_left_is_what_waits_or_runs_at_one_consumer() -> None:
    name = "laboratory.analysis"
    scrape = changed(f'gomq_channel_depth{{broker="default",consumer="{name}"}}', 6)

    assert left(scrape, name) == 6
    assert left(scrape, "audit.trail") == 0
    assert consumers(scrape) == ["audit.trail", name]
