"""What the matrix found, kept as JSON for the table of docs/deployment.md."""

from __future__ import annotations

import fcntl
import json
from dataclasses import asdict, dataclass
from typing import Final

from tests.django_site.programs import ROOT
from tests.servers.configuration import Configuration
from tests.servers.observing import QUEUED, Observation, drains_in, handled_by

FILE: Final = ROOT / "build" / "tests" / "servers.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One line of the table."""

    name: str
    consumers: str
    """Where they live."""
    queued: str
    """What became of the events that were queued at the end."""
    drained_by: str
    status: int
    seconds: float
    stuck_left: int | None = None
    """None where nothing can drain, or nothing runs."""
    stuck_seconds: float | None = None


def summarize(row: Configuration, seen: Observation) -> Result:
    """Return the line of the table for what was observed."""
    triggers = {one.trigger for one in drains_in(seen.slow.ending.log)}
    stuck = drains_in(seen.stuck.log)
    is_alone = set(seen.slow.after) == {seen.slow.pid}
    return Result(
        name=row.name,
        consumers="its process" if is_alone else "each worker, not their parent",
        queued=_tell_queued(row, seen) if triggers else f"lost: {row.why_lost}",
        drained_by=" ".join(sorted(triggers)),
        status=seen.slow.ending.status,
        seconds=round(seen.slow.ending.seconds, 1),
        stuck_left=sum(one.left for one in stuck) if stuck else None,
        stuck_seconds=round(seen.stuck.seconds, 1) if stuck else None,
    )


def _tell_queued(row: Configuration, seen: Observation) -> str:
    emitter = seen.slow.emitter
    handled = len(handled_by(seen.slow.ending, emitter["pid"]))
    # What it emitted before was handled before.
    told = f"{QUEUED - emitter['emitted'] + handled} of {QUEUED} handled"
    if row.cuts_requests_short:
        told += "; none where the signal comes inside a request"
    return told


def keep(results: list[Result]) -> None:
    """Put these into the file, in place of what it tells of the same names."""
    FILE.parent.mkdir(parents=True, exist_ok=True)
    with FILE.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes test at once
        kept = {one.name: one for one in load()}
        kept.update((one.name, one) for one in results)
        told = json.dumps([asdict(one) for one in kept.values()], indent=2)
        FILE.write_text(f"{told}\n")


def load() -> list[Result]:
    """Return what the file tells; nothing if there is none."""
    if not FILE.exists():
        return []
    return [Result(**one) for one in json.loads(FILE.read_text())]
