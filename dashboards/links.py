"""Where boards are and how one leads to another."""

from __future__ import annotations

from typing import Final

OVERVIEW: Final = "gomq-overview"
CONSUMER: Final = "gomq-consumer"
TELEMETRY: Final = "gomq-telemetry"
FLEET: Final = "gomq-fleet"
SERVERS: Final = "gomq-servers"

_DRILL_DOWN_KEEPS: Final = ("datasource", "job", "instance")


def of_alert(board: str, *labels: str) -> str:
    """Return a board's path, set to the labels of an alert."""
    wanted = [f"var-{label}={{{{ $labels.{label} | urlquery }}}}" for label in labels]
    return f"{board}?{'&'.join(wanted)}"


def to_consumer(*keep: str) -> str:
    """Return the address that leads from a row of a table to its consumer."""
    kept = [f"${{{name}:queryparam}}" for name in keep or _DRILL_DOWN_KEEPS]
    row = [
        f"var-{name.lower()}=${{__data.fields.{name}}}"
        for name in ("Broker", "Consumer")
    ]
    return f"/d/{CONSUMER}?{'&'.join([*kept, *row, '${__url_time_range}'])}"
