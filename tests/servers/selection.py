"""Which rows a test takes: ``make test`` runs a few, ``make test-all`` the rest too."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from _pytest.mark import ParameterSet

from tests.servers.configuration import Configuration


def rows(configurations: Iterable[Configuration]) -> list[ParameterSet]:
    """Return parameters, marked ``slow`` where ``make test`` leaves them out."""
    return [
        pytest.param(
            one,
            id=one.name,
            marks=() if one.is_representative else pytest.mark.slow,
        )
        for one in configurations
    ]
