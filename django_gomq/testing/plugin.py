"""The pytest plugin: the ``gomq_events`` fixture, and the table of conformance."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pytest

from .capture import CapturedEvents, capture
from .report import conformance_lines

# The suite is imported by test modules, but is none itself.
pytest.register_assert_rewrite("django_gomq.testing.conformance")


@pytest.fixture
def gomq_events() -> Iterator[CapturedEvents]:
    """Return the events that the test emits, captured; nothing is published."""
    with capture() as events:
        yield events


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what each backend was found to promise, refuse or keep to itself."""
    reports = [
        report
        for report in chain.from_iterable(terminalreporter.stats.values())
        if isinstance(report, pytest.TestReport)
    ]
    lines = conformance_lines(reports)
    if lines:
        terminalreporter.section("conformance of backends")
        for line in lines:
            terminalreporter.write_line(line)
