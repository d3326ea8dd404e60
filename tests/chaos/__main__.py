"""``make chaos``: kill workers under load on every server, and judge what is left."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.chaos.run import BACKENDS, run

MAX_SHOWN = 20


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--backend", choices=list(BACKENDS), default="database")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--lease", type=float, default=6.0, help="seconds")
    parser.add_argument("--vendor", action="append", metavar="NAME")
    parser.add_argument("--keep", type=Path, help="keep journals and log in there")
    options = parser.parse_args()
    for vendor in options.vendor or ():
        if vendor not in BACKENDS[options.backend]:
            known = ", ".join(BACKENDS[options.backend])
            parser.error(f"--vendor {vendor}: {options.backend} has {known}")
    return options


def _main() -> int:
    options, failed = _parse(), 0
    known = BACKENDS[options.backend]
    for vendor in options.vendor or known:
        with TemporaryDirectory(prefix="gomq-chaos-") as name:
            folder = options.keep / vendor if options.keep else Path(name)
            folder.mkdir(parents=True, exist_ok=True)
            outcome = run(options.backend, vendor, options.kills, folder, options.lease)
        sys.stdout.write(f"{outcome.summary}\n")
        for problem in outcome.problems[:MAX_SHOWN]:
            sys.stdout.write(f"  {problem}\n")
        sys.stdout.write(f"  {len(outcome.problems)} problems\n")
        sys.stdout.flush()
        failed += bool(outcome.problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(_main())
