"""Kills of workers under load lose nothing, and repeat only what they explain."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import run

# A stall is with the sixth.
KILLS = {"database": 10, "redis": 6}
LEASE = 15.0  # seconds; a busy machine may hold a process up for some of them


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("backend", "vendor"),
    [
        ("database", "sqlite"),
        ("database", "postgresql"),
        ("database", "mariadb"),
        ("redis", "redis"),
        ("redis", "valkey"),
    ],
)
def test_workers_that_are_killed_lose_nothing(
    backend: str, vendor: str, tmp_path: Path
) -> None:
    outcome = run(backend, vendor, KILLS[backend], tmp_path, LEASE)

    assert outcome.problems == (), outcome.summary
