"""`make pictures`: the shipped boards as they look while the clinic has trouble.

Two clinics, one on its database and one on Redis behind an outbox, have visitors while
the laboratory is slow and flaky in turn and a consumer is paused. Then a picture is
taken of each board; see `dashboards/pictures`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from acceptance.ports import ServerError
from acceptance.server import PROJECT, Server
from clinic.simulation.client import UnansweredError
from clinic.simulation.interrupt import Interrupt
from clinic.simulation.simulation import Simulation
from watching.observatory import Observatory
from watching.program import ProgramError

ROOT = PROJECT.parent
PAUSED = "statistics.pages"
PAUSED_FROM = 0.6
"""Of the time."""
INTERVAL = 5
"""Seconds between two scrapes: so short that a line has more points than dots."""
NOBODY = "127.0.0.1:1"
"""Whom Alertmanager tells."""


def main() -> int:
    """Load, then take the pictures; return the exit status."""
    chosen = _arguments()
    os.environ["CLINIC_REDIS_OUTBOX"] = "default"
    try:
        with Interrupt() as interrupt, contextlib.ExitStack() as running:
            servers = [
                running.enter_context(Server(0, backend=backend))
                for backend in ("database", "redis")
            ]
            first, *others = (
                urlsplit(url).netloc for server in servers for url in server.processes
            )
            seen = running.enter_context(
                Observatory(first, NOBODY, workers=others, interval=INTERVAL)
            )
            with contextlib.ExitStack() as traffic:
                _load(servers, traffic, interrupt, chosen)
                # Until then; what is asked later would show the end of the traffic.
                end = int(time.time())
            return 130 if interrupt.asked else _take(seen.prometheus_url, end, chosen)
    except (ProgramError, ServerError, UnansweredError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _load(
    servers: list[Server],
    traffic: contextlib.ExitStack,
    interrupt: Interrupt,
    chosen: argparse.Namespace,
) -> None:
    runs = [
        traffic.enter_context(
            Simulation(server.url, seconds=0, rate=chosen.rate, workers=4, switch=True)
        )
        for server in servers
    ]
    paused = False
    end = time.monotonic() + chosen.seconds
    while (left := end - time.monotonic()) > 0 and not interrupt.asked:
        for run in runs:
            run.step()
        if not paused and left < chosen.seconds * (1 - PAUSED_FROM):
            servers[0].manage("gomq", "pause", PAUSED)
            paused = True
        interrupt.wait(1)


def _take(prometheus: str, end: int, chosen: argparse.Namespace) -> int:
    command = [sys.executable, "-m", "dashboards.pictures", "--prometheus", prometheus]
    command += ["--end", str(end), "--minutes", f"{chosen.seconds / 60:g}"]
    command += ["--scrape-interval", str(INTERVAL)]
    command += ["--out", str(chosen.out), *chosen.boards]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="of load")
    parser.add_argument("--rate", type=float, default=20, help="actions a second each")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("boards", nargs="*", help="uids; all without any")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
