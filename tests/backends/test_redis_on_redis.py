"""The Redis backend passes the suite on Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_gomq.testing.conformance import ConformanceSuite
from tests.backends.redis_servers import RedisHarness, harness_on


class OnRedis(RedisHarness):
    pass


@pytest.fixture(scope="module", autouse=True)
def _served() -> Iterator[None]:
    with harness_on("redis", OnRedis):
        yield


class TestRedis(ConformanceSuite):
    harness = OnRedis
