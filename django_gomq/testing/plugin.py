"""The pytest plugin: fixtures, the marker ``gomq``, and the table of conformance."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Final

import pytest

from .captured import CapturedEvents, capture
from .kit import Gomq, running
from .report import conformance_lines

# The suite is imported by test modules, but is none itself.
pytest.register_assert_rewrite("django_gomq.testing.conformance")


_MARKER: Final = (
    "gomq(mode): run the test in this mode of django_gomq: capture, inline or live"
)
_INI: Final = "gomq_mode"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the mode of all tests from the configuration."""
    parser.addini(
        _INI, "mode of django_gomq in tests: capture, inline or live", "string"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


def _mode_of(request: pytest.FixtureRequest) -> str:
    """Return the mode that the marker, or else the configuration, says; or nothing."""
    marker = request.node.get_closest_marker("gomq")
    if marker is None:
        return str(request.config.getini(_INI) or "")
    if len(marker.args) != 1 or marker.kwargs:
        pytest.fail(f"Write @pytest.mark.gomq(mode); {_MARKER}.", pytrace=False)
    return str(marker.args[0])


@pytest.fixture(autouse=True)
def _gomq_mode(request: pytest.FixtureRequest) -> None:
    """Enter the mode that was asked for, also where no fixture is."""
    if _mode_of(request):
        request.getfixturevalue("gomq")


@pytest.fixture
def gomq(request: pytest.FixtureRequest) -> Iterator[Gomq]:
    """Return the test kit, in the mode of the marker or of ``gomq_mode``; capture."""
    # First, so that live() can look at it, and ends before it does.
    if _uses_database(request):
        request.getfixturevalue("db")
    with running(_mode_of(request) or "capture") as kit:
        yield kit


def _uses_database(request: pytest.FixtureRequest) -> bool:
    """Whether pytest-django gives the test a database, of whichever kind."""
    has_mark = request.node.get_closest_marker("django_db") is not None
    return has_mark or not {"db", "transactional_db"}.isdisjoint(request.fixturenames)


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
