"""Every file that ships, as text; it writes none.

``options.json`` says what ``manage.py gomq dashboards`` may put elsewhere: the defaults
as they stand in the files, and on boards, where no comment can name an option, the
places of each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dashboards import (
    alerts_consumers,
    alerts_losses,
    alerts_processes,
    alerts_servers,
    consumer,
    fleet,
    overview,
    recordings,
    servers,
    telemetry,
)
from dashboards.promql import JOB
from dashboards.rules import DASHBOARD_URL, RUNBOOK_URL, to_yaml
from dashboards.thresholds import ALL, Level

ALERTS: Final = (
    alerts_losses.GROUP,
    alerts_consumers.GROUP,
    alerts_processes.GROUP,
    alerts_servers.GROUP,
)
RECORDINGS: Final = (recordings.GROUP,)
_IN_A_MENU: Final = "inControlsMenu"
"""Where the SDK would hide links and annotations; without a place they are seen."""
_BOARDS: Final = (
    overview.make,
    consumer.make,
    telemetry.make,
    fleet.make,
    servers.make,
)


def files() -> dict[str, str]:
    """Return the text of each file by its path in the package's folder."""
    made = {
        "prometheus/alerts.yml": to_yaml(ALERTS),
        "prometheus/recording.yml": to_yaml(RECORDINGS),
    }
    places = {}
    for make in _BOARDS:
        board = as_json(make())
        path = f"grafana/{board['uid']}.json"
        places[path] = dict(_places(board, ""))
        made[path] = to_text(board)
    return {**made, "options.json": to_text(_options(places))}


def as_json(value: Any) -> Any:
    """Return the values of the SDK as JSON has them, levels kept as they are."""
    if hasattr(value, "to_json"):
        return as_json(value.to_json())
    if isinstance(value, Mapping):
        kept = {name: item for name, item in value.items() if item != _IN_A_MENU}
        return {name: as_json(item) for name, item in kept.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value


def to_text(value: Any) -> str:
    """Return JSON that has a line for each value, so that versions compare."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _places(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Level):
        yield path, value.name
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _places(item, f"{path}/{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, f"{path}/{index}")


def _options(places: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    thresholds = {
        alert.name: {"default": alert.number, "unit": alert.unit, "help": alert.text}
        for alert in ALL.values()
    }
    return {
        "job": JOB,
        "dashboard_url": DASHBOARD_URL,
        "runbook_url": RUNBOOK_URL,
        "thresholds": thresholds,
        "places": places,
    }
