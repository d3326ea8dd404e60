"""Sites of gunicorn, and a Prometheus that watches them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
RULES: Final = ROOT / "django_gomq" / "dashboards" / "prometheus"
SECONDS: Final = 10
"""Between two scrapes, and between two evaluations."""
STOP_SECONDS: Final = 40


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str) -> bytes:
    """Return a page; raises OSError."""
    with urllib.request.urlopen(url, timeout=5) as page:  # noqa: S310 - on loopback
        return bytes(page.read())


class Site:
    """gunicorn in front of the shop, with visitors from its start to its end."""

    def __init__(
        self,
        job: str,
        home: Path,
        *,
        workers: int = 3,
        shares: bool = True,
        visits: float = 1.0,
        max_requests: int = 0,
    ) -> None:
        """``visits`` are those of a second; workers that share have one page."""
        self.job = job
        self.max_requests = max_requests
        self._home = home / job
        self._home.mkdir()
        self._workers, self._shares, self._visits = workers, shares, visits
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"
        self._deployments = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._is_over = threading.Event()
        self._visitors = threading.Thread(target=self._visit, daemon=True)
        self.rename("old")

    def start(self) -> None:
        """Start it, with an empty directory of numbers."""
        self._deployments += 1
        folder = self._home / f"numbers-{self._deployments}"
        folder.mkdir()
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SHOP_LETTERS": str(self._home / "letters"),
        }
        if self._shares:
            environment["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        options = {
            "bind": self.address,
            "workers": self._workers,
            "worker-class": "gthread",
            "threads": 4,
            "max-requests": self.max_requests,
            "max-requests-jitter": self.max_requests // 4,
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        command = [sys.executable, "-m", "gunicorn", *words, "--no-control-socket"]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - of ours
                [*command, "benchmarks.alerts.shop.wsgi"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )
        if not self._visitors.is_alive():
            self._visitors.start()

    def stop(self) -> None:
        """End it in order, or by force where a handler hangs."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def deploy(self) -> None:
        """Stop it and start it anew."""
        self.stop()
        self.start()

    def reload(self) -> None:
        """Have new workers take the place of the old ones."""
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def rename(self, letters: str) -> None:
        """Have the next workers call one consumer by another name."""
        (self._home / "letters").write_text(letters)

    def kill_worker(self) -> None:
        """End one worker at once, as the kernel does where memory is short."""
        if self._process is not None:
            pid = self._process.pid
            found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            with suppress(ProcessLookupError):
                os.kill(int(found[0]), signal.SIGKILL)

    def tell(self, path: str) -> None:
        """Have one worker do something."""
        get(f"http://{self.address}/{path}")

    def close(self) -> None:
        """End site and visitors."""
        self._is_over.set()
        self.stop()

    def _visit(self) -> None:
        while not self._is_over.wait(1 / self._visits):
            with suppress(OSError):  # between two deployments
                self.tell("visit")


@contextmanager
def prometheus(home: Path, sites: list[Site]) -> Iterator[str]:
    """Have one watch these sites under the rules that ship; yield its address."""
    home.mkdir()
    scrapes = [
        {
            "job_name": site.job,
            "metrics_path": "/gomq/metrics",
            "static_configs": [{"targets": [site.address]}],
        }
        for site in sites
    ]
    every = f"{SECONDS}s"
    config = {
        "global": {"scrape_interval": every, "evaluation_interval": every},
        "rule_files": [str(RULES / "*.yml")],
        "scrape_configs": scrapes,
    }
    # YAML takes JSON.
    (home / "prometheus.yml").write_text(json.dumps(config))
    program = shutil.which("prometheus")
    if program is None:
        raise SystemExit("there is no prometheus; apt-get install prometheus")
    address = f"127.0.0.1:{free_port()}"
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - the one on PATH
            [
                program,
                f"--config.file={home / 'prometheus.yml'}",
                f"--storage.tsdb.path={home / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


class Alerts:
    """What fired for which job, from when to when, in seconds since the start."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._began = time.monotonic()
        self.seen: dict[tuple[str, str], list[float]] = {}

    def look(self) -> None:
        """Note what fires now."""
        with suppress(OSError):
            answer: dict[str, Any] = json.loads(get(f"{self._url}/api/v1/alerts"))
            now = time.monotonic() - self._began
            for alert in answer["data"]["alerts"]:
                if alert["state"] == "firing":
                    labels = dict(alert["labels"])
                    job = labels.pop("job", "")
                    key = job, _told(labels)
                    self.seen[key] = [self.seen.get(key, [now])[0], now]


def _told(labels: dict[str, str]) -> str:
    name, severity = labels.pop("alertname"), labels.pop("severity")
    labels.pop("broker", None)
    labels.pop("instance", None)
    return f"{name} {' '.join(labels.values())} ({severity})"
