"""`make observe`: Prometheus and Alertmanager beside the demo, until Ctrl-C.

With `--target HOST:PORT` they watch a site that runs already, and nothing else starts.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
from urllib.parse import urlsplit

from acceptance.ports import ServerError
from acceptance.run import demonstrate
from acceptance.server import Server
from clinic.simulation.client import UnansweredError
from clinic.simulation.interrupt import Interrupt
from watching.observatory import Observatory
from watching.program import ProgramError
from watching.webhook import Webhook


def main() -> int:
    """Watch until told to stop; return the exit status."""
    chosen = _arguments()
    try:
        with Interrupt() as interrupt, contextlib.ExitStack() as running:
            server = None if chosen.target else running.enter_context(Server(0))
            site = chosen.target or urlsplit(server.url if server else "").netloc
            webhook = running.enter_context(Webhook(lambda notice: _say(str(notice))))
            seen = running.enter_context(Observatory(site, webhook.address))
            _say(_addresses(seen))
            return _run(server, interrupt, chosen)
    except (ProgramError, ServerError, UnansweredError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(
    server: Server | None, interrupt: Interrupt, chosen: argparse.Namespace
) -> int:
    if server is not None:
        agreed = demonstrate(
            server, interrupt, seconds=chosen.seconds, rate=chosen.rate, workers=8
        )
        return 0 if agreed else 1
    _say(f"watching {chosen.target}; Ctrl-C ends it")
    interrupt.wait(chosen.seconds or threading.TIMEOUT_MAX)
    return 0


def _addresses(seen: Observatory) -> str:
    pages = {
        "graphs": f"{seen.prometheus_url}/graph",
        "alerts": f"{seen.prometheus_url}/alerts",
        "sent": f"{seen.alertmanager_url}/",
    }
    return "\n".join(f"{name:>9}  {url}" for name, url in pages.items())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    # An empty value, as an unset SECONDS of make gives, means without end.
    parser.add_argument("--seconds", type=float, nargs="?", default=0.0, const=0.0)
    parser.add_argument("--rate", type=float, default=20.0, help="actions a second")
    parser.add_argument("--target", metavar="HOST:PORT", default="")
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
