"""A process of this site whose messages wait, and which serves its metrics page."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.django_site.programs import ROOT, environment

WAITING: Final = 5

_PROGRAM: Final = """
import json, os, sys
from django.conf import settings
settings.GOMQ = json.loads(os.environ["SITE_GOMQ"])
import django
django.setup()
from wsgiref.simple_server import make_server
from django.core.wsgi import get_wsgi_application
from django.urls import resolve
from django_gomq import emit, get_broker
from django_gomq.observability.metrics import render
from tests.django_site.clinic.events import RecordSaved
from tests.django_site.waiting import wait_until

application = get_wsgi_application()
broker = get_broker()
broker.start()
emit(RecordSaved(record_id=1))
wait_until(lambda: broker.stats().is_quiet and handled())
broker.pause("clinic.statistics")
for number in range(int(os.environ["SITE_WAITING"])):
    emit(RecordSaved(record_id=1))
wait_until(lambda: counted().depth == int(os.environ["SITE_WAITING"]))
render("")  # also writes what is shared
resolve("/gomq/metrics")  # imports the URLs, so that no visitor waits for it
server = make_server("127.0.0.1", 0, application)
print(server.server_port, flush=True)
server.serve_forever()
"""
_HELPERS: Final = """
def counted():
    return broker.stats().consumers["clinic.statistics"]
def handled():
    return sum(counted().processed.values())
"""


class WaitingSite:
    """One such process: 1 message was handled, ``WAITING`` wait."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.port = int(process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/gomq/metrics"

    def kill(self) -> None:
        """End it as the out-of-memory killer does."""
        self.process.kill()
        self.process.wait()


@contextmanager
def waiting_site(
    *,
    gomq: Mapping[str, Any] | None = None,
    waiting: int = WAITING,
    directory: Path | None = None,
) -> Iterator[WaitingSite]:
    """Run it with these settings of ours, and kill it at the end."""
    site = {"SITE_GOMQ": json.dumps(gomq or {}), "SITE_WAITING": str(waiting)}
    if directory is not None:
        site["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    process = subprocess.Popen(
        [sys.executable, "-c", _HELPERS + _PROGRAM],
        cwd=ROOT,
        env=environment(**site),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        with process:
            try:
                yield WaitingSite(process)
            finally:
                process.kill()
    finally:
        process.wait()
