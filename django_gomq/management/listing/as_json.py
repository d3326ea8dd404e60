"""An overview as JSON with stable keys; it gathers nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from .emitters import Emitter
from .overview import Overview


def as_json(overview: Overview) -> str:
    """Return the overview as one JSON document."""
    found: Mapping[str, Any] = {
        "events": [
            {**_plain(one), "emitters": _emitters(one.emitters)}
            for one in overview.events
        ],
        "consumers": [_plain(one) for one in overview.consumers],
        "brokers": [_plain(one) for one in overview.brokers],
        "routes": [_plain(one) for one in overview.routes],
        "dynamic": _emitters(overview.dynamic),
        "warnings": [_plain(one) for one in overview.warnings],
    }
    return json.dumps(found, indent=2)


def _plain(row: msgspec.Struct) -> dict[str, Any]:
    return msgspec.structs.asdict(row)


def _emitters(emitters: Sequence[Emitter]) -> Sequence[Mapping[str, Any]]:
    return [
        {"file": one.file, "line": one.line, "call": one.call, "text": one.text}
        for one in emitters
    ]
