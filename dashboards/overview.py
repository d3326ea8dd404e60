"""The first board to look at: is anything lost, late or failing, and where."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards import board, links, variables
from dashboards.board import Row
from dashboards.overview_consumers import consumers
from dashboards.overview_flow import flow
from dashboards.overview_health import health
from dashboards.overview_waiting import waiting
from dashboards.promql import PROCESS


def make() -> Dashboard:
    """Return the board."""
    chosen = [
        variables.datasource(),
        variables.job(),
        variables.instance(),
        variables.broker(),
        variables.event(),
        variables.consumer(),
    ]
    rows = [
        Row("Health", health()),
        Row("Consumers", [consumers()]),
        Row("Flow", flow()),
        Row("Waiting", waiting()),
    ]
    return board.make(
        links.OVERVIEW,
        "django-gomq / Overview",
        "Is anything lost, late or failing? Start here.",
        chosen,
        rows,
        where=PROCESS,
    )
