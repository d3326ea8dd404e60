from __future__ import annotations

import pytest

from tests.servers.configuration import Configuration
from tests.servers.conftest import Observe, skip_if_missing
from tests.servers.matrix import MATRIX
from tests.servers.observing import HANDLED
from tests.servers.selection import rows


@pytest.mark.parametrize("row", rows(one for one in MATRIX if one.has_one_page))
def test_the_page_of_a_lone_worker_counts_what_it_handled(
    row: Configuration, observed: Observe
) -> None:
    skip_if_missing(row)

    page = observed(row).slow.page

    assert HANDLED.search(page), page
