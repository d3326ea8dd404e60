"""`manage.py simulate`: traffic for a running clinic, over HTTP and nothing else."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from clinic.simulation.client import UnansweredError
from clinic.simulation.interrupt import Interrupt
from clinic.simulation.simulation import Simulation
from clinic.simulation.tally import Counts

TICK = 1.0


class Command(BaseCommand):
    """Visit a running clinic, at a steady rate, and count its answers."""

    help = __doc__ or ""
    # It talks to a server: the state of the database here does not matter.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Say where, how long and how fast."""
        parser.add_argument("--url", default="http://127.0.0.1:8000")
        parser.add_argument("--seconds", type=float, default=0, help="0: until Ctrl-C")
        parser.add_argument("--rate", type=float, default=20, help="actions a second")
        parser.add_argument("--workers", type=int, default=8)
        parser.add_argument(
            "--switch", action="store_true", help="turn the laboratory's switch too"
        )
        parser.add_argument("--json", type=Path, help="write the counts to this file")

    def handle(self, **options: Any) -> None:
        """Run until the time is up or Ctrl-C, then tell what was counted."""
        names = ("seconds", "rate", "workers", "switch")
        chosen = {name: options[name] for name in names}
        try:
            counts = self._run(Simulation(options["url"], **chosen))
        except UnansweredError as error:
            raise CommandError(f"{error}; is the clinic running?") from error
        summary = json.dumps(counts.as_json(), indent=2)
        self.stdout.write(summary)
        if options["json"]:
            options["json"].write_text(summary + "\n")

    def _run(self, simulation: Simulation) -> Counts:
        with Interrupt() as interrupt, simulation as run:
            while not (run.over or interrupt.asked):
                self._tell(run.elapsed, run.step())
                interrupt.wait(TICK)
            return run.finish()

    def _tell(self, elapsed: float, counts: Counts) -> None:
        self.stdout.write(
            f"{elapsed:5.0f} s  {counts.requests} requests, "
            f"{counts.unanswered} unanswered"
        )
