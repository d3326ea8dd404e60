"""Longer runs of the state machines that hypothesis drives."""

from __future__ import annotations

from unittest import TestCase

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine


def for_long(machine: type[RuleBasedStateMachine]) -> type[TestCase]:
    """Return the test of a machine with many more runs, which only some ask for."""
    usual: type[TestCase] = machine.TestCase
    more = {"settings": settings(machine.TestCase.settings, max_examples=1000)}
    return pytest.mark.slow(type("Long", (usual,), more))
