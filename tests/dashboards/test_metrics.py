"""What boards and rules ask for exists, and what exists is asked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dashboards import reading
from django_gomq.observability.metrics.collector import BusCollector

RULES = sorted((reading.PACKAGE / "prometheus").glob("*.yml"))
# On no board and in no rule, each with its reason.
UNUSED: dict[str, str] = {
    "gomq_messages_unknown_total": "only brokers with a server have it"
}


def exported() -> set[str]:
    """Every name that Prometheus stores."""
    names = set()
    for family in BusCollector(list).describe():
        if family.type == "histogram":
            names |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
        else:
            names.add(
                f"{family.name}_total" if family.type == "counter" else family.name
            )
    return names


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"\bgomq_[a-z0-9_]+", text)) - {"gomq_"}


def recorded_in(text: str) -> set[str]:
    return set(re.findall(r"\bgomq:[a-z0-9_:]+", text))


def queries_of_boards() -> str:
    asked = []
    for board in reading.boards():
        asked += [query.expr for query in reading.queries(board)]
        asked += reading.marks(board).values()
        asked += [
            one.get("definition", "") for one in reading.variables(board).values()
        ]
    return "\n".join(asked)


def expressions(file: Path) -> str:
    """The rules without their annotations, which are prose."""
    kept = [
        line
        for line in file.read_text().splitlines()
        if not re.match(r" +\w+: \"", line)
    ]
    return "\n".join(kept)


@pytest.mark.parametrize("file", RULES, ids=lambda file: str(file.name))
def test_every_metric_that_a_rule_names_is_exported(file: Path) -> None:
    assert metrics_in(expressions(file)) - exported() == set()


def test_every_metric_that_a_board_names_is_exported() -> None:
    assert metrics_in(queries_of_boards()) - exported() == set()


def test_every_exported_metric_is_on_a_board_or_said_to_be_unused() -> None:
    asked = metrics_in(queries_of_boards())
    missing = {
        name
        for name in exported() - asked
        # A histogram is on a board when any part of it is.
        if not name.endswith(("_bucket", "_sum", "_count"))
        or not asked
        & {f"{name.rsplit('_', 1)[0]}_{part}" for part in ("bucket", "sum")}
    }

    assert missing == set(UNUSED)


def test_every_recording_is_used() -> None:
    recordings = (reading.PACKAGE / "prometheus" / "recording.yml").read_text()
    recorded = set(re.findall(r"record: (\S+)", recordings))
    alerts = expressions(reading.PACKAGE / "prometheus" / "alerts.yml")
    asked = recorded_in(queries_of_boards() + alerts)

    assert asked == recorded
