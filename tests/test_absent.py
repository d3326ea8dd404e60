"""Missing servers are skips that say how to have them, and failures in CI."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import pytest

from tests import absent
from tests.django_site import mariadb, pgbouncer, postgres

SERVERS: list[tuple[str, Callable[[], AbstractContextManager[object]]]] = [
    ("postgresql", postgres.running),
    ("mariadb-server", mariadb.running),
    ("pgbouncer", partial(pgbouncer.bouncing, {}, "transaction")),
]


@pytest.fixture
def nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, **where: None)
    monkeypatch.setattr("pathlib.Path.glob", lambda self, pattern: [])
    monkeypatch.setattr("pathlib.Path.exists", lambda self: False)


@pytest.mark.usefixtures("nothing_is_installed")
@pytest.mark.parametrize(("package", "serve"), SERVERS)
@pytest.mark.parametrize(
    ("servers", "ends"),
    [("", pytest.skip.Exception), ("required", pytest.fail.Exception)],
)
def test_a_missing_server_says_how_to_have_it(
    package: str,
    serve: Callable[[], AbstractContextManager[object]],
    servers: str,
    ends: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(absent.SERVERS, servers)

    with pytest.raises(ends, match=f"apt-get install {package}"):
        serve().__enter__()
