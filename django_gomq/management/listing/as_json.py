"""An overview as JSON with stable keys; it gathers nothing."""

from __future__ import annotations

import json

import msgspec

from .overview import Overview


def as_json(overview: Overview) -> str:
    """Return the overview as one JSON document; its keys are the names of the rows."""
    return json.dumps(msgspec.to_builtins(overview), indent=2)
