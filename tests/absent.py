"""A server that a test needs and this machine lacks: a skip, and a failure in CI."""

from __future__ import annotations

import os
from typing import Final, NoReturn

import pytest

SERVERS: Final = "GOMQ_TEST_SERVERS"
"""What .ci/run sets to "required"."""


def absent(reason: str) -> NoReturn:
    """Skip the test with what would run it; fail it where servers are required."""
    if os.environ.get(SERVERS) == "required":
        pytest.fail(reason)
    pytest.skip(reason)
