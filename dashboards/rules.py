"""Alerts and recordings as values, and their YAML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from dashboards.marks import fill
from dashboards.thresholds import Threshold

DASHBOARD_URL: Final = "http://localhost:3000"
RUNBOOK_URL: Final = "runbooks"
_HEAD: Final = """\
# Written by `make dashboards`; edit dashboards/ instead. `manage.py gomq dashboards`
# writes this file with other numbers: a comment at a line's end names the option.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A series that Prometheus computes beforehand."""

    name: str
    expr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One reason to look, with what to look at."""

    name: str
    expr: str
    patience: Threshold | int = 0
    """Seconds for which it has to be so."""
    severity: str
    """critical, warning, or a template."""
    summary: str
    description: str
    board: str
    """Its path and variables, behind the address of Grafana."""


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated together, in their order."""

    name: str
    rules: Sequence[Recording | Alert]


def to_yaml(groups: Sequence[Group]) -> str:
    """Return the file of these groups."""
    lines = ["groups:"]
    for group in groups:
        lines += [f"  - name: {group.name}", "    rules:"]
        for rule in group.rules:
            lines += _alert(rule) if isinstance(rule, Alert) else _recording(rule)
    return _HEAD + "\n".join(lines) + "\n"


def _recording(rule: Recording) -> Iterator[str]:
    yield f"      - record: {rule.name}"
    yield from _expr(rule.expr)


def _alert(rule: Alert) -> Iterator[str]:
    yield f"      - alert: {rule.name}"
    yield from _expr(rule.expr)
    if rule.patience:
        yield from fill(f"        for: {rule.patience}s")
    yield "        labels:"
    yield f"          severity: {json.dumps(rule.severity)}"
    yield "        annotations:"
    notes = {
        "summary": rule.summary,
        "description": rule.description,
        "dashboard_url": f"{DASHBOARD_URL}/d/{rule.board}",
        "runbook_url": f"{RUNBOOK_URL}/{rule.name}.md",
    }
    for name, text in notes.items():
        yield f"          {name}: {json.dumps(text, ensure_ascii=False)}"


def _expr(expr: str) -> Iterator[str]:
    yield "        expr: |"
    for line in fill(expr):
        yield f"          {line}"
