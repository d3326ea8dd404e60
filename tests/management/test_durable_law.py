"""Published = handled + dead letters + what waits, over database and processes."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.django_site import postgres
from tests.django_site.waiting import wait_until
from tests.management.commanding import command
from tests.management.durable_site import DurableSite
from tests.ports import free_port

EMITTED: Final = 40
REJECTED: Final = 4
DELAYED: Final = 4
HELD: Final = (
    "gomq_channel_depth",
    "gomq_messages_scheduled",
    "gomq_messages_in_flight",
)
_WEB: Final = """
import sys
from wsgiref.simple_server import make_server
from django.core.wsgi import get_wsgi_application
make_server("127.0.0.1", int(sys.argv[1]), get_wsgi_application()).serve_forever()
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[DurableSite]:
    """A site that is set up on PostgreSQL."""
    with postgres.serving() as address:
        made = DurableSite(tmp_path)
        made.use_postgresql(address)
        made.set_up()
        yield made


def get(address: str, path: str) -> str:
    with urllib.request.urlopen(f"http://{address}/{path}", timeout=30) as answer:
        return str(answer.read().decode())


def answers(address: str, path: str) -> bool:
    try:
        return bool(get(address, path))
    except OSError:
        return False


@contextmanager
def web(site: DurableSite) -> Iterator[str]:
    """Serve the site; yield its address."""
    address = f"127.0.0.1:{free_port()}"
    line = [sys.executable, "-c", _WEB, address.partition(":")[2]]
    with site.running(line, name="web") as process:

        def is_served() -> bool:
            assert process.process.poll() is None, process.log
            return answers(address, "gomq/livez")

        wait_until(is_served, "the web server")
        yield address


class Pages:
    """One scrape of every process."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._samples = [
            sample
            for address in addresses
            for family in text_string_to_metric_families(get(address, "gomq/metrics"))
            for sample in family.samples
            if sample.labels.get("broker") == "default"
        ]

    def of(self, name: str, **labels: str) -> list[float]:
        """Return the value in each process that has it."""
        return [
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def ended(self, consumer: str) -> tuple[float, float]:
        """Return successes and dead letters, of all processes."""
        succeeded = self.of(
            "gomq_messages_processed_total", consumer=consumer, outcome="success"
        )
        dead = self.of("gomq_messages_dead_lettered_total", consumer=consumer)
        return sum(succeeded), sum(dead)

    def waiting(self, consumer: str) -> tuple[float, float]:
        """Return what is ready and scheduled at the server: each sees the same."""
        ready = self.of("gomq_server_depth", consumer=consumer)
        scheduled = self.of("gomq_server_scheduled", consumer=consumer)
        return max(ready, default=-1.0), max(scheduled, default=-1.0)

    def held(self, consumer: str) -> float:
        return sum(sum(self.of(name, consumer=consumer)) for name in HELD)

    def gap(self, consumer: str) -> float:
        """Return how many messages are nowhere."""
        published = sum(self.of("gomq_messages_published_total", event="job.asked"))
        found = sum(self.ended(consumer)) + sum(self.waiting(consumer))
        return published - found - self.held(consumer)


def is_sampled(found: Pages) -> bool:
    """Whether every worker has asked the server since all was handled."""
    letters = found.of("gomq_server_dead_letters", consumer="jobs.done")
    delayed = found.of("gomq_server_scheduled", consumer="jobs.done")
    return letters == [REJECTED, REJECTED] and delayed == [DELAYED, DELAYED]


def test_the_law_holds_over_two_workers_a_web_process_and_their_database(
    site: DurableSite,
) -> None:
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    one, two = (["--consumers", "jobs.done", "--metrics-addr", at] for at in addresses)
    with (
        web(site) as server,
        site.worker(*one) as first,
        site.running(command("worker", *two), name="second") as second,
    ):
        second.wait_for("runs:")
        for address in addresses:
            wait_until(lambda: answers(address, "gomq/metrics"), "a worker's page")  # noqa: B023
        for number in range(EMITTED):
            assert get(server, f"do/{number}") == "asked"
        pages = [server, *addresses]

        done = (EMITTED - REJECTED - DELAYED, REJECTED)
        wait_until(lambda: Pages(pages).ended("jobs.done") == done, "all handled")
        wait_until(lambda: is_sampled(Pages(pages)), "samples of after that")

        found = Pages(pages)
        assert found.gap("jobs.done") == found.gap("jobs.seen") == 0
        assert found.held("jobs.done") == 0
        assert max(found.of("gomq_server_workers", consumer="jobs.done")) == 2
        assert max(found.of("gomq_server_workers", consumer="jobs.seen")) == 0
        assert found.waiting("jobs.seen") == (EMITTED - DELAYED, DELAYED)
        assert found.waiting("jobs.done") == (0, DELAYED)
        # Only workers ask the server, and what each was handed it has ended.
        assert len(found.of("gomq_server_processes")) == 2
        fetched = found.of("gomq_messages_fetched_total", consumer="jobs.done")
        back = found.of("gomq_messages_handed_back_total", consumer="jobs.done")
        assert sum(fetched) - sum(back) == sum(done)
        assert (first.end(), second.end()) == (0, 0)
