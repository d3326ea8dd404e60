from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.servers import results
from tests.servers.configuration import Configuration
from tests.servers.observing import Observation, observe

Observe = Callable[[Configuration], Observation]


def skip_if_missing(configuration: Configuration) -> None:
    why = configuration.why_not_here()
    if why is not None:
        pytest.skip(f"{configuration.name} cannot run here: {why}")


@pytest.fixture(scope="session")
def observed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Observe]:
    """Observes each row once, whichever test is the first to ask, and keeps results."""
    rows: dict[str, Configuration] = {}
    seen: dict[str, Future[Observation]] = {}
    with ThreadPoolExecutor(2) as pool:

        def start(row: Configuration) -> Future[Observation]:
            if row.name not in seen:
                rows[row.name] = row
                folder = tmp_path_factory.mktemp("row")
                seen[row.name] = pool.submit(observe, row, folder)
            return seen[row.name]

        for row in _rows_of(request.session.items):
            if row.is_long and row.why_not_here() is None:
                start(row)  # beside the others, as it mostly waits
        yield lambda row: start(row).result()
    results.keep(
        [
            results.summarize(rows[name], future.result())
            for name, future in seen.items()
            if future.exception() is None
        ]
    )


def _rows_of(items: list[pytest.Item]) -> Iterator[Configuration]:
    """Yield the rows that the selected tests observe."""
    for item in items:
        if isinstance(item, pytest.Function) and "observed" in item.fixturenames:
            row = item.callspec.params["row"]
            if isinstance(row, Configuration):
                yield row
