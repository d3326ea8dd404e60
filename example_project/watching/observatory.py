"""Prometheus and Alertmanager with the files of `observability/`, on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from acceptance.ports import free_port
from acceptance.server import PROJECT
from watching.program import Program, find

CONFIGURATION = PROJECT / "observability"
RULES = PROJECT.parent / "django_gomq" / "dashboards" / "prometheus"

# As they stand in the files, where containers use them.
_SITE = "127.0.0.1:8000"
_ALERTMANAGER = "127.0.0.1:9093"
_WEBHOOK = "127.0.0.1:9099"
_RULES = "../../django_gomq/dashboards/prometheus"
_EVERY = "_interval: 1s"


class Observatory:
    """Both programs, watching one site; their data is gone when it is closed."""

    def __init__(
        self,
        site: str,
        webhook: str,
        rules: Path = RULES,
        *,
        ports: tuple[int, int] = (9090, 9093),
        workers: Sequence[str] = (),
        interval: int = 1,
    ) -> None:
        """Take addresses as host:port, and the ports that are preferred; 0 is any.

        Prometheus asks and evaluates every ``interval`` seconds.
        """
        self._targets = '", "'.join([site, *workers])
        self._webhook = webhook
        self._rules = rules
        self._interval = interval
        self._home = Path(
            tempfile.mkdtemp(prefix=f"observe-{os.getpid()}-", dir=PROJECT / "var")
        )
        self._closing = contextlib.ExitStack()
        first, second = map(free_port, ports)
        self.prometheus_url = f"http://127.0.0.1:{first}"
        self.alertmanager_url = f"http://127.0.0.1:{second}"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as starting:
            starting.callback(shutil.rmtree, self._home, ignore_errors=True)
            starting.enter_context(self._alertmanager())
            starting.enter_context(self._prometheus())
            self._closing = starting.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.close()

    def _prometheus(self) -> Program:
        alertmanager = self.alertmanager_url.removeprefix("http://")
        config = self._configure(
            "prometheus.yml",
            {
                _SITE: self._targets,
                _ALERTMANAGER: alertmanager,
                _RULES: str(self._rules),
                _EVERY: _EVERY.replace("1", str(self._interval)),
            },
        )
        command = [
            find("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={self._home / 'prometheus'}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
        ]
        return self._program("prometheus", command, self.prometheus_url)

    def _alertmanager(self) -> Program:
        config = self._configure("alertmanager.yml", {_WEBHOOK: self._webhook})
        command = [
            find("prometheus-alertmanager", "alertmanager"),
            f"--config.file={config}",
            f"--storage.path={self._home / 'alertmanager'}",
            # It has no others to agree with.
            "--cluster.listen-address=",
            "--log.level=warn",
        ]
        return self._program("alertmanager", command, self.alertmanager_url)

    def _program(self, name: str, command: list[str], url: str) -> Program:
        address = f"--web.listen-address={url.removeprefix('http://')}"
        return Program([*command, address], url, self._home / f"{name}.log")

    def _configure(self, name: str, changes: dict[str, str]) -> Path:
        text = (CONFIGURATION / name).read_text()
        for before, after in changes.items():
            text = text.replace(before, after)
        config = self._home / name
        config.write_text(text)
        return config
