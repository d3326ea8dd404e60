"""`make demo`: the clinic under a real server and real traffic.

It exits with 0 only if the answers, the rows and the metrics agree and no message is
unaccounted for.
"""

from __future__ import annotations

import argparse
import sys

from acceptance.ports import ServerError
from acceptance.run import demonstrate
from acceptance.server import BACKENDS, Server
from clinic.simulation.client import UnansweredError
from clinic.simulation.interrupt import Interrupt


def main() -> int:
    """Run the demonstration; return the exit status."""
    chosen = _arguments()
    try:
        with (
            Interrupt() as interrupt,
            Server(chosen.port, backend=chosen.backend) as server,
        ):
            agreed = demonstrate(
                server,
                interrupt,
                seconds=chosen.seconds,
                rate=chosen.rate,
                workers=chosen.workers,
            )
    except (ServerError, UnansweredError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0 if agreed else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    # An empty value, as an unset SECONDS of make gives, means without end.
    parser.add_argument("--seconds", type=float, nargs="?", default=0.0, const=0.0)
    # So does PORT; by default it is 8000, or a free one where that is taken.
    parser.add_argument("--port", type=int, nargs="?", default=0, const=0)
    parser.add_argument("--backend", choices=BACKENDS, default="memory")
    # So few that even a busy machine drops nothing but where the switches say so.
    parser.add_argument("--rate", type=float, default=20.0, help="actions a second")
    parser.add_argument("--workers", type=int, default=8)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
