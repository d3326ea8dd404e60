from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.django_site.waiting import wait_until
from tests.servers.asking import Ask
from tests.servers.configuration import Configuration
from tests.servers.conftest import skip_if_missing
from tests.servers.matrix import FINISHING
from tests.servers.observing import handled_by
from tests.servers.selection import rows
from tests.servers.serving import serving

# A request takes so long, and emits after that.
HOLD_SECONDS = 1.0


@pytest.mark.parametrize("row", rows(FINISHING))
def test_what_a_request_emits_after_the_signal_is_handled(
    row: Configuration, tmp_path: Path
) -> None:
    skip_if_missing(row)

    with serving(row, tmp_path) as server, ThreadPoolExecutor(1) as pool:
        server.ask(Ask("emit", "slow", 1))
        request = pool.submit(server.ask, Ask("emit", "slow", 5), hold=HOLD_SECONDS)
        wait_until(lambda: len(server.noted("asked")) == 2, "the second request")
        ending = server.end()
        answer = request.result()

    assert answer["emitted"] == 6
    assert handled_by(ending, answer["pid"]) == [1, 2, 3, 4, 5, 6]
