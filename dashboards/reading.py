"""Reads the boards that ship: every query with its panel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PACKAGE: Final = Path(__file__).parents[1] / "django_gomq" / "dashboards"


@dataclass(frozen=True, slots=True)
class Asked:
    """One query, and who asks it."""

    board: str
    panel: str
    name: str
    expr: str
    is_instant: bool
    has_exemplars: bool


def boards(folder: Path = PACKAGE) -> list[dict[str, Any]]:
    """Return every board."""
    files = sorted((folder / "grafana").glob("*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the panels of a board without the headings."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(board: dict[str, Any]) -> Iterator[Asked]:
    """Yield every query of its panels."""
    for panel in panels(board):
        for target in panel["targets"]:
            yield Asked(
                board["title"],
                panel["title"],
                target["legendFormat"],
                target["expr"],
                target["instant"],
                target.get("exemplar", False),
            )


def marks(board: dict[str, Any]) -> dict[str, str]:
    """Return the query of each annotation by its name."""
    found = board["annotations"]["list"]
    return {target["name"]: target["target"]["expr"] for target in found}


def variables(board: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the variables by name."""
    return {item["name"]: item for item in board["templating"]["list"]}
