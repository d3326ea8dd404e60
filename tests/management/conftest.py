from __future__ import annotations

from pathlib import Path

import pytest

from tests.management.durable_site import DurableSite


@pytest.fixture
def bare(tmp_path: Path) -> DurableSite:
    """A site with an empty database."""
    return DurableSite(tmp_path)


@pytest.fixture
def durable(bare: DurableSite) -> DurableSite:
    """A site that is migrated and set up."""
    bare.set_up()
    return bare
