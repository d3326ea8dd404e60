"""Which rows a test takes: ``make test`` runs a few, ``make test-servers`` all."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from _pytest.mark import ParameterSet

from tests.servers.configuration import Configuration


def rows(configurations: Iterable[Configuration]) -> list[ParameterSet]:
    """Return parameters, marked ``servers_all`` where ``make test`` leaves them out."""
    return [
        pytest.param(
            one,
            id=one.name,
            marks=() if one.is_representative else pytest.mark.servers_all,
        )
        for one in configurations
    ]
