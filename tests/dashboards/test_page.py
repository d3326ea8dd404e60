"""docs/dashboards.md tells what ships."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dashboards import reading
from django_gomq.management.dashboards import DEFAULTS

PAGE = (Path(__file__).parents[2] / "docs" / "dashboards.md").read_text()
RULES = reading.PACKAGE / "prometheus"


def test_the_page_lists_every_alert_with_its_severity() -> None:
    text = (RULES / "alerts.yml").read_text()
    shipped = re.findall(r"alert: (\w+)\n.*?severity: \"([^\"]+)\"", text, re.DOTALL)
    listed = re.findall(r"^\| `(Gomq\w+)` \| ([\w' ]+) \|", PAGE, re.MULTILINE)

    own = "{{ $labels.severity }}"
    assert listed == [(n, "the consumer's" if s == own else s) for n, s in shipped]


def test_the_page_lists_every_board() -> None:
    titles = [one["title"].removeprefix("django-gomq / ") for one in reading.boards()]

    for title in titles:
        assert f"\n| {title} | " in PAGE


def test_the_page_counts_right() -> None:
    alerts = (RULES / "alerts.yml").read_text().count("- alert: ")
    recordings = (RULES / "recording.yml").read_text().count("- record: ")

    assert f" {alerts} alerts and {recordings} recorded series" in PAGE


@pytest.mark.parametrize("name", DEFAULTS.thresholds)
def test_the_page_lists_a_threshold_with_its_default(name: str) -> None:
    one = DEFAULTS.thresholds[name]

    assert f"| `{name}` | {one.default} | {one.unit} | {one.help} |" in PAGE
