"""How Redis is reached: through TLS, which is verified, and by its Sentinels."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from django_gomq.bus.errors import BackendUnavailableError, PublishError
from django_gomq.testing.conformance.site import EVENT, Notes, Site, wait_until
from tests.absent import absent
from tests.architecture.interpreter import run_python
from tests.backends.redis_servers import (
    RedisHarness,
    RedisServer,
    harness_on,
    program_of,
    running,
)
from tests.ports import free_port


class OnTLS(RedisHarness):
    pass


class Watched(RedisHarness):
    """Its server stays away once it was stopped: the Sentinels have another."""

    def start_server(self) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def site_with(made: type[RedisHarness], **options: Any) -> Iterator[Site]:
    """Have processes that reach their server so."""
    harness = made()
    harness.options |= options
    site = Site(harness, lambda verdict, feature: None)
    try:
        yield site
    finally:
        site.close()


def handles_one(site: Site) -> bool:
    process, notes = site.process(), Notes()
    process.consume(notes)
    process.send(1)
    wait_until(lambda: process.stats().succeeded == 1)
    return notes.numbers == [1]


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(
        ["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=60
    )


@pytest.fixture
def tls_port(tmp_path: Path) -> Iterator[int]:
    """Serve Redis with a certificate of an authority that nobody knows."""
    if shutil.which("openssl") is None:
        absent("there is no openssl here; to run it: apt-get install openssl")
    made = ("-newkey", "rsa:2048", "-nodes", "-days", "2")
    _openssl(
        tmp_path,
        *("req", "-x509", *made, "-keyout", "ca.key", "-out", "ca.pem"),
        # Python 3.13 takes no authority without.
        *("-subj", "/CN=authority", "-addext", "keyUsage=critical,keyCertSign"),
    )
    _openssl(
        tmp_path,
        *("req", "-x509", *made, "-keyout", "key.pem", "-out", "cert.pem"),
        *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        *("-addext", "basicConstraints=critical,CA:FALSE"),
        *("-CA", "ca.pem", "-CAkey", "ca.key"),
    )
    port = free_port()
    with harness_on(
        "redis",
        OnTLS,
        *("--tls-port", str(port), "--tls-auth-clients", "no"),
        *("--tls-cert-file", str(tmp_path / "cert.pem")),
        *("--tls-key-file", str(tmp_path / "key.pem")),
        *("--tls-ca-cert-file", str(tmp_path / "ca.pem")),
    ):
        yield port


def test_a_certificate_of_a_known_authority_is_trusted(
    tls_port: int, tmp_path: Path
) -> None:
    url = f"rediss://localhost:{tls_port}/0"
    known = {"ssl_ca_certs": str(tmp_path / "ca.pem")}

    with site_with(OnTLS, url=url, connection=known) as site:
        assert handles_one(site)


@pytest.mark.parametrize("case", ["authority", "host"])
def test_a_server_that_cannot_be_verified_is_refused(
    tls_port: int, tmp_path: Path, case: str
) -> None:
    known = {"ssl_ca_certs": str(tmp_path / "ca.pem")} if case == "host" else {}
    host = "127.0.0.1" if case == "host" else "localhost"

    url = f"rediss://{host}:{tls_port}/0"
    with site_with(OnTLS, url=url, connection=known) as site:
        process = site.process(may_start=lambda: False)
        with pytest.raises(BackendUnavailableError, match="certificate verify failed"):
            process.send(1)


@contextmanager
def sentinel(kind: str, folder: Path, master: int) -> Iterator[int]:
    """Run a Sentinel that watches this server alone; yield its port."""
    port = free_port()
    (folder / "sentinel.conf").write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor events 127.0.0.1 {master} 1\n"
        "sentinel down-after-milliseconds events 60000\n"
        "sentinel failover-timeout events 60000\n"
    )
    program = program_of(kind)
    with (folder / "sentinel.log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(folder / "sentinel.conf"), "--sentinel"],
            stdout=log,
            stderr=log,
        )
    try:
        with redis.Redis(port=port, protocol=2) as client:
            wait_until(lambda: _asked(client, "events"))
        yield port
    finally:
        process.kill()
        process.wait()


def _asked(client: Any, name: str) -> Any:
    try:
        return client.execute_command("SENTINEL", "get-master-addr-by-name", name)
    except redis.RedisError:
        return None


def test_the_sentinels_say_who_the_server_is_also_after_a_failover(
    redis_kind: str, tmp_path: Path
) -> None:
    with (
        harness_on(redis_kind, Watched),
        running(redis_kind, *_replica_of(Watched.server)) as replica,
        sentinel(redis_kind, tmp_path, Watched.server.port) as port,
        redis.Redis(port=port, protocol=2) as client,
        replica.client() as promoted,
    ):
        wait_until(lambda: _role(promoted) == ("slave", "up"))
        wait_until(lambda: client.sentinel_slaves("events"))
        reached = {"sentinels": [("127.0.0.1", port)], "service": "events"}
        with site_with(Watched, url="redis://unused/0", **reached) as site:
            process, notes = site.process(), Notes()
            process.consume(notes)
            process.send(1)
            wait_until(lambda: process.stats().succeeded == 1)
            wait_until(lambda: promoted.xlen(f"{{gomq}}:e:{EVENT}") == 1)

            wait_until(lambda: _fails_over(client, "events"))
            wait_until(lambda: _role(promoted)[0] == "master")
            site.harness.stop_server()

            wait_until(lambda: _sends(process, 2))
            wait_until(lambda: 2 in notes.numbers)
            process.close()


def _replica_of(server: RedisServer) -> tuple[str, str]:
    return "--replicaof", f"127.0.0.1 {server.port}"


def _fails_over(client: Any, name: str) -> bool:
    """Whether it was begun: not before the Sentinel knows that a replica is good."""
    try:
        client.sentinel_failover(name)
    except redis.ResponseError:
        return False
    return True


def _role(client: Any) -> tuple[str, str | None]:
    told = client.info("replication")
    return told["role"], told.get("master_link_status")


def _sends(process: Any, number: int) -> bool:
    try:
        process.send(number)
    except PublishError:
        return False
    return True


def test_a_site_without_the_client_library_is_told_what_to_install() -> None:
    said = run_python(
        "import sys; sys.modules['redis'] = None\n"
        "try:\n    import django_gomq.backends.redis\n"
        "except Exception as error: print(type(error).__name__, error)",
    )

    assert said.startswith("ConfigurationError")
    assert "pip install 'django-gomq[redis]'" in said
