"""A clinic under load with a Prometheus beside it, and a drop made on purpose."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from acceptance.ports import free_port
from acceptance.scrape import fetch
from acceptance.server import Server
from clinic.simulation.client import Client
from clinic.simulation.simulation import Simulation
from clinic.simulation.switching import SwitchTurner
from clinic.simulation.tally import Tally
from django_gomq.management.dashboards import Values, write_dashboards
from tests.answers import Answers, wait_for
from watching.observatory import Observatory
from watching.program import INSTALL
from watching.webhook import Notice, Webhook

DROP_ALERT = "GomqMessagesDropped"
DIED = "gomq_messages_dead_lettered_total"
LOSS_WINDOW = 10
"""Seconds, instead of five minutes: a drop has to be old news within the test."""
PATIENCE = 90.0


@dataclass
class Observed:
    """What the tests look at."""

    prometheus: Answers = field(init=False)
    notices: list[tuple[float, Notice]] = field(default_factory=list)
    dropped_at: float = 0.0

    def take(self, notice: Notice) -> None:
        """Note when an alert came."""
        self.notices.append((time.monotonic(), notice))

    def arrived(
        self, status: str, alert: str = DROP_ALERT
    ) -> list[tuple[float, Notice]]:
        """Return the notices of an alert."""
        return [
            (at, notice)
            for at, notice in self.notices
            if (notice.status, notice.labels["alertname"]) == (status, alert)
        ]


@contextlib.contextmanager
def observe(folder: Path) -> Iterator[Observed]:
    """Start everything, make the laboratory drop, then fail; the load goes on."""
    write_dashboards(folder, Values(thresholds={"loss_window": str(LOSS_WINDOW)}))
    with contextlib.ExitStack() as running:
        server = running.enter_context(Server(free_port(0), backend="database"))
        observed = Observed()
        webhook = running.enter_context(Webhook(observed.take))
        site, *workers = (urlsplit(url).netloc for url in server.processes)
        rules = folder / "prometheus"
        # Others look for free ports at the same time.
        observatory = Observatory(
            site, webhook.address, rules, ports=(0, 0), workers=workers
        )
        running.enter_context(observatory)
        observed.prometheus = Answers(observatory.prometheus_url)
        _trouble(observed, server, running.enter_context(load(server)))
        yield observed


@contextlib.contextmanager
def load(server: Server) -> Iterator[SwitchTurner]:
    """Have visitors come; yield who turns the laboratory's switch."""
    visitors = Simulation(server.url, seconds=0, rate=60, workers=6, switch=False)
    client = Client(server.url, Tally())
    with visitors, contextlib.closing(client):
        yield SwitchTurner(client)


def need_programs() -> None:
    """Skip the test where Prometheus or Alertmanager is missing."""
    for names in (("prometheus",), ("prometheus-alertmanager", "alertmanager")):
        if not any(map(shutil.which, names)):
            pytest.skip(f"there is no {names[0]}; to run it: {INSTALL}")


def _trouble(observed: Observed, server: Server, switch: SwitchTurner) -> None:
    switch.turn("slow")
    wait_for(PATIENCE, lambda: _has_dropped(server), "a full channel")
    observed.dropped_at = time.monotonic()
    wait_for(PATIENCE, lambda: observed.arrived("firing"), "the alert")
    switch.turn("flaky")
    wait_for(
        PATIENCE, lambda: gave_up(observed.prometheus), "dead letters in Prometheus"
    )
    switch.turn("normal")


def gave_up(prometheus: Answers) -> bool:
    """Whether Prometheus knows of dead letters and of the exceptions before them."""
    # Series that begin with the first exception have no rate before the second sample.
    has_rate = prometheus.numbers("rate(gomq_handler_exceptions_total[10s])")
    return bool(has_rate) and sum(prometheus.numbers(DIED)) > 0


def _has_dropped(server: Server) -> bool:
    return fetch(server.url).total("gomq_messages_dropped_total") > 0
